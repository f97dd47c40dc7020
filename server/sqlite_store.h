#ifndef ATTNFLEET_SERVER_SQLITE_STORE_H_
#define ATTNFLEET_SERVER_SQLITE_STORE_H_

#include <sqlite3.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/job_store.h"

namespace attnfleet::server {

// The store in one SQLite file. A row is the serialized message and the few columns that are searched. Write-ahead log
// with synchronous=FULL: a commit survives the machine, not only the process, and the coordinator makes one commit for
// all that happened since the last.
class SqliteStore : public JobStore {
 public:
  enum class Mode {
    kServe,   // creates the file, or brings its schema up to date
    kBeside,  // for reading what is open already in another thread: not checked again
    kRead,    // changes neither file nor log: NOT_FOUND if there is no file, FAILED_PRECONDITION if its schema is older
  };

  // DATA_LOSS if the file is damaged or no database, FAILED_PRECONDITION if a newer attnfleet wrote it; it is left as
  // it is then, and so is its log beside it. Every error names the file.
  static absl::StatusOr<std::unique_ptr<SqliteStore>> Open(const std::string& path, Mode mode = Mode::kServe);

  std::string name() const override { return "store " + path_; }
  absl::Status Save(const StoreChanges& changes) override;
  absl::Status Delete(const std::vector<uint64_t>& ids) override;
  absl::Status Fill(const Source& next) override;
  absl::StatusOr<std::unique_ptr<JobStore>> OpenReader() override { return Open(path_, Mode::kBeside); }
  absl::Status Read(const Selection& selection, RowReader& reader) override;

 private:
  struct CloseDatabase {
    void operator()(sqlite3* database) const { sqlite3_close(database); }
  };
  struct FinalizeStatement {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  using Statement = std::unique_ptr<sqlite3_stmt, FinalizeStatement>;

  SqliteStore(std::string path, sqlite3* database) : path_(std::move(path)), database_(database) {}

  absl::Status Error(int code) const;
  absl::Status Execute(const std::string& sql);
  absl::StatusOr<Statement> Prepare(std::string_view sql);
  // Runs a statement that returns no row and makes it ready for the next time.
  absl::Status Step(sqlite3_stmt* statement);
  absl::Status Initialize(Mode mode);
  absl::Status PrepareStatements();
  absl::Status CheckIntegrity();
  absl::Status Migrate(Mode mode);
  // Runs `work` between BEGIN and COMMIT; on an error nothing of it has happened.
  absl::Status InTransaction(const char* begin, const std::function<absl::Status()>& work);
  absl::Status SaveRows(const StoreChanges& changes);
  absl::Status FillRows(const Source& next);
  absl::Status ReadRows(const Selection& selection, RowReader& reader);
  absl::Status ForEachRow(const std::string& sql, const std::function<absl::Status(sqlite3_stmt*)>& take);

  const std::string path_;
  const std::unique_ptr<sqlite3, CloseDatabase> database_;
  Statement save_benchmark_;
  Statement save_run_;
  Statement save_setting_;
  Statement remove_setting_;
  Statement delete_runs_;
  Statement delete_benchmark_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_SQLITE_STORE_H_
