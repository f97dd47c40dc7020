#ifndef ATTNFLEET_SERVER_POSTGRES_STORE_H_
#define ATTNFLEET_SERVER_POSTGRES_STORE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/job_store.h"
#include "server/leadership.h"
#include "server/postgres.h"

namespace attnfleet::server {

// The store in a PostgreSQL database that several coordinators share. Rows as in SqliteStore. A batch is one statement,
// which also checks that this coordinator still leads (see Leadership): one round trip and one commit for all that
// happened since the last, and nothing of it if another leads by now.
class PostgresStore : public JobStore {
 public:
  // Creates the tables, or brings them up to date. Also safe while other coordinators do the same.
  static absl::Status Migrate(const std::string& url);

  // `leadership` is this coordinator's, which leads, and must outlive the store; null: for reading only.
  // FAILED_PRECONDITION if the database holds no store, an older one or one that a newer attnfleet wrote.
  static absl::StatusOr<std::unique_ptr<PostgresStore>> Open(const std::string& url, Leadership* leadership,
                                                             std::chrono::milliseconds limit = kStatementLimit);

  std::string name() const override { return postgres_.name(); }
  absl::Status ConfirmLead() override;
  absl::Status Save(const StoreChanges& changes) override;
  absl::Status Delete(const std::vector<uint64_t>& ids) override;
  absl::Status Fill(const Source& next) override;
  absl::StatusOr<std::unique_ptr<JobStore>> OpenReader() override;
  absl::Status Read(const Selection& selection, RowReader& reader) override;

 private:
  // A statement is one batch; a database that takes longer is treated as one that is away.
  static constexpr std::chrono::milliseconds kStatementLimit{10'000};

  PostgresStore(const std::string& url, Leadership* leadership, std::chrono::milliseconds limit = kStatementLimit);

  int64_t epoch() const { return leadership_ == nullptr ? 0 : leadership_->epoch(); }
  // To be called before a write: one that had no answer can no longer happen afterwards.
  absl::Status GiveUpUnanswered();
  absl::Status MigrateTables();
  absl::StatusOr<int64_t> SchemaVersion();
  // Runs a statement that returns how many rows the fence let through.
  absl::Status Fenced(const char* sql, const PostgresParameters& parameters);
  // Runs `work` between `begin` and COMMIT; on an error the connection is closed, and nothing of it has happened.
  absl::Status InTransaction(const std::string& begin, const std::function<absl::Status()>& work);
  absl::Status FillRows(const Source& next);
  absl::Status ReadRows(const Selection& selection, RowReader& reader);
  absl::Status ForEachRow(const std::string& sql, const std::function<absl::Status(const PostgresRows&, int)>& take);

  const std::string url_;
  Postgres postgres_;
  Leadership* const leadership_;
  bool unanswered_ = false;  // a write has had no answer
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_POSTGRES_STORE_H_
