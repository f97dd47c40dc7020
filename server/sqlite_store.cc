#include "server/sqlite_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"

namespace attnfleet::server {
namespace {

// Script i takes the schema from version i to i + 1. A script that was released is never edited.
constexpr std::array<const char*, 2> kMigrations = {
    R"sql(
      CREATE TABLE benchmarks (
        id INTEGER PRIMARY KEY,
        state INTEGER NOT NULL,
        submitted_unix_ms INTEGER NOT NULL,
        request_id TEXT NOT NULL,
        message BLOB NOT NULL);  -- Benchmark without jobs
      CREATE UNIQUE INDEX benchmarks_request ON benchmarks (request_id) WHERE request_id != '';
      CREATE TABLE runs (
        benchmark_id INTEGER NOT NULL REFERENCES benchmarks (id),
        job_index INTEGER NOT NULL,
        repetition INTEGER NOT NULL,
        state INTEGER NOT NULL,
        message BLOB NOT NULL,  -- Run
        PRIMARY KEY (benchmark_id, job_index, repetition)) WITHOUT ROWID;
    )sql",
    R"sql(
      CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    )sql"};

constexpr int kBusyTimeoutMs = 5'000;

void BindBytes(sqlite3_stmt* statement, int index, const std::string& bytes) {
  sqlite3_bind_blob64(statement, index, bytes.data(), bytes.size(), SQLITE_TRANSIENT);
}

void BindText(sqlite3_stmt* statement, int index, const std::string& text) {
  sqlite3_bind_text64(statement, index, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
}

// Of a text or a blob. Valid until the next step.
std::string_view Bytes(sqlite3_stmt* statement, int column) {
  const void* data = sqlite3_column_blob(statement, column);
  return {static_cast<const char*>(data), static_cast<size_t>(sqlite3_column_bytes(statement, column))};
}

}  // namespace

absl::StatusOr<std::unique_ptr<SqliteStore>> SqliteStore::Open(const std::string& path, Mode mode) {
  if (mode != Mode::kServe && access(path.c_str(), F_OK) != 0) {
    return absl::NotFoundError(absl::StrCat("there is no store ", path));
  }
  // SQLite would let everybody read a file that it creates, and gives those beside it the rights of this one. One that
  // is there must not be opened here: to close it would take SQLite's locks from this whole process, and the next
  // program that reads the store would believe itself alone and delete the log that is written to.
  if (const int created = open(path.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600); created >= 0)
    close(created);
  sqlite3* database = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &database,
                                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<SqliteStore> store(new SqliteStore(path, database));
  if (code != SQLITE_OK) return store->Error(code);
  // The last connection to end moves the log into the file: not before the file is known to be one to go on with.
  sqlite3_db_config(database, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  if (absl::Status status = store->Initialize(mode); !status.ok()) return status;
  if (mode == Mode::kServe) sqlite3_db_config(database, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, nullptr);
  return store;
}

absl::Status SqliteStore::Error(int code) const {
  const std::string text =
      absl::StrCat(name(), ": ", database_ != nullptr ? sqlite3_errmsg(database_.get()) : sqlite3_errstr(code));
  switch (code & 0xff) {
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(absl::StrCat(text, " (No space left on device: free some)"));
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(absl::StrCat(text,
                                              "; the file is damaged or no attnfleet store. Restore it, or move it, "
                                              "and what is named like it (-wal, -shm), away to start anew"));
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
      return absl::PermissionDeniedError(text);
    default:
      return absl::UnavailableError(text);
  }
}

absl::Status SqliteStore::Execute(const std::string& sql) {
  const int code = sqlite3_exec(database_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : Error(code);
}

absl::StatusOr<SqliteStore::Statement> SqliteStore::Prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v2(database_.get(), sql.data(), static_cast<int>(sql.size()), &statement, nullptr);
  if (code != SQLITE_OK) return Error(code);
  return Statement(statement);
}

absl::Status SqliteStore::Step(sqlite3_stmt* statement) {
  const int code = sqlite3_step(statement);
  absl::Status status = code == SQLITE_DONE ? absl::OkStatus() : Error(code);
  sqlite3_reset(statement);
  sqlite3_clear_bindings(statement);
  return status;
}

absl::Status SqliteStore::Initialize(Mode mode) {
  sqlite3_busy_timeout(database_.get(), kBusyTimeoutMs);
  if (mode != Mode::kBeside) {
    if (absl::Status status = CheckIntegrity(); !status.ok()) return status;
  }
  if (absl::Status status = Migrate(mode); !status.ok()) return status;
  if (mode == Mode::kServe) {
    // The first of them writes, so it waits until the schema is known to be one to go on with.
    if (absl::Status status = Execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;");
        !status.ok()) {
      return status;
    }
  }
  return PrepareStatements();
}

absl::Status SqliteStore::PrepareStatements() {
  const std::pair<Statement*, const char*> statements[] = {
      {&save_benchmark_,
       "INSERT INTO benchmarks (id, state, submitted_unix_ms, request_id, message) VALUES (?1, ?2, ?3, ?4, ?5) "
       "ON CONFLICT (id) DO UPDATE SET state = ?2, message = ?5"},
      {&save_run_,
       "INSERT OR REPLACE INTO runs (benchmark_id, job_index, repetition, state, message) VALUES (?1, ?2, ?3, ?4, ?5)"},
      {&save_setting_, "INSERT OR REPLACE INTO settings (name, value) VALUES (?1, ?2)"},
      {&remove_setting_, "DELETE FROM settings WHERE name = ?1"},
      {&delete_runs_, "DELETE FROM runs WHERE benchmark_id = ?1"},
      {&delete_benchmark_, "DELETE FROM benchmarks WHERE id = ?1"},
  };
  for (const auto& [statement, sql] : statements) {
    absl::StatusOr<Statement> prepared = Prepare(sql);
    if (!prepared.ok()) return prepared.status();
    *statement = std::move(*prepared);
  }
  return absl::OkStatus();
}

absl::Status SqliteStore::CheckIntegrity() {
  absl::StatusOr<Statement> check = Prepare("PRAGMA quick_check(1)");
  if (!check.ok()) return check.status();
  const int code = sqlite3_step(check->get());
  if (code != SQLITE_ROW) return Error(code);
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(check->get(), 0));
  if (text != nullptr && std::string_view(text) == "ok") return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      name(), ": ", text != nullptr ? text : "unreadable",
      "; the file is damaged. Restore it, or move it, and what is named like it (-wal, -shm), away to start anew"));
}

absl::Status SqliteStore::Migrate(Mode mode) {
  int version = 0;
  {
    absl::StatusOr<Statement> query = Prepare("PRAGMA user_version");
    if (!query.ok()) return query.status();
    if (const int code = sqlite3_step(query->get()); code != SQLITE_ROW) return Error(code);
    version = sqlite3_column_int(query->get(), 0);
  }
  const int known = static_cast<int>(kMigrations.size());
  if (version > known) {
    return absl::FailedPreconditionError(absl::StrCat(name(), ": a newer attnfleet wrote it (schema ", version,
                                                      ", this program knows ", known, "); use that version"));
  }
  if (version < known && mode != Mode::kServe) {
    return absl::FailedPreconditionError(absl::StrCat(name(), ": an older attnfleet wrote it (schema ", version,
                                                      ", this program knows ", known, "); start the server once"));
  }
  for (; version < known; ++version) {
    absl::Status status = Execute(absl::StrCat("BEGIN IMMEDIATE;", kMigrations[static_cast<size_t>(version)],
                                               "PRAGMA user_version=", version + 1, ";COMMIT;"));
    if (!status.ok()) {
      sqlite3_exec(database_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status SqliteStore::InTransaction(const char* begin, const std::function<absl::Status()>& work) {
  if (absl::Status status = Execute(begin); !status.ok()) return status;
  absl::Status status = work();
  if (status.ok()) status = Execute("COMMIT");
  // Also after a COMMIT that failed: it leaves the transaction open.
  if (!status.ok()) sqlite3_exec(database_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
  return status;
}

absl::Status SqliteStore::ForEachRow(const std::string& sql, const std::function<absl::Status(sqlite3_stmt*)>& take) {
  absl::StatusOr<Statement> query = Prepare(sql);
  if (!query.ok()) return query.status();
  int code = SQLITE_ROW;
  while ((code = sqlite3_step(query->get())) == SQLITE_ROW) {
    if (absl::Status status = take(query->get()); !status.ok()) return status;
  }
  return code == SQLITE_DONE ? absl::OkStatus() : Error(code);
}

absl::Status SqliteStore::Read(const Selection& selection, RowReader& reader) {
  return InTransaction("BEGIN", [&] { return ReadRows(selection, reader); });
}

absl::Status SqliteStore::ReadRows(const Selection& selection, RowReader& reader) {
  if (absl::Status status =
          ForEachRow("SELECT name, value FROM settings ORDER BY name",
                     [&](sqlite3_stmt* row) { return reader.TakeSetting(Bytes(row, 0), Bytes(row, 1)); });
      !status.ok() || !selection.benchmarks) {
    return status;
  }
  const std::string one = selection.id == 0 ? "" : absl::StrCat(" AND id = ", selection.id);
  if (absl::Status status = ForEachRow(
          absl::StrCat("SELECT id, state, request_id, message FROM benchmarks WHERE true", one, " ORDER BY id"),
          [&](sqlite3_stmt* row) {
            return reader.TakeBenchmark(
                {sqlite3_column_int64(row, 0), sqlite3_column_int64(row, 1), Bytes(row, 2), Bytes(row, 3)});
          });
      !status.ok()) {
    return status;
  }
  // CROSS JOIN is SQLite's way to fix the order of the loops: benchmarks outside.
  const char* const all = "SELECT * FROM runs WHERE true";
  const std::string unended = absl::StrCat(
      "SELECT runs.* FROM benchmarks CROSS JOIN runs ON benchmark_id = id "
      "WHERE benchmarks.state NOT IN (",
      v1::BENCHMARK_STATE_FINISHED, ", ", v1::BENCHMARK_STATE_CANCELLED, ")");
  return ForEachRow(
      absl::StrCat(selection.runs_of_ended ? all : unended,
                   selection.id == 0 ? "" : absl::StrCat(" AND benchmark_id = ", selection.id),
                   " ORDER BY benchmark_id, job_index, repetition"),
      [&](sqlite3_stmt* row) {
        return reader.TakeRun({sqlite3_column_int64(row, 0), sqlite3_column_int64(row, 1), sqlite3_column_int64(row, 2),
                               sqlite3_column_int64(row, 3), Bytes(row, 4)});
      });
}

absl::Status SqliteStore::Save(const StoreChanges& changes) {
  return InTransaction("BEGIN IMMEDIATE", [&] { return SaveRows(changes); });
}

absl::Status SqliteStore::Delete(const std::vector<uint64_t>& ids) {
  return InTransaction("BEGIN IMMEDIATE", [&]() -> absl::Status {
    for (const uint64_t id : ids) {
      for (const Statement* statement : {&delete_runs_, &delete_benchmark_}) {
        sqlite3_bind_int64(statement->get(), 1, static_cast<int64_t>(id));
        if (absl::Status status = Step(statement->get()); !status.ok()) return status;
      }
    }
    return absl::OkStatus();
  });
}

absl::Status SqliteStore::Fill(const Source& next) {
  return InTransaction("BEGIN IMMEDIATE", [&] { return FillRows(next); });
}

absl::Status SqliteStore::FillRows(const Source& next) {
  absl::Status empty =
      ForEachRow("SELECT 1 FROM (SELECT id FROM benchmarks UNION ALL SELECT 1 FROM settings) LIMIT 1",
                 [this](sqlite3_stmt*) { return absl::FailedPreconditionError(name() + " is not empty"); });
  if (!empty.ok()) return empty;
  for (;;) {
    StoreChanges changes;
    const absl::StatusOr<bool> more = next(changes);
    if (!more.ok() || !*more) return more.status();
    if (absl::Status status = SaveRows(changes); !status.ok()) return status;
  }
}

absl::Status SqliteStore::SaveRows(const StoreChanges& changes) {
  for (const StoreChanges::ChangedBenchmark& changed : changes.benchmarks) {
    const v1::Benchmark& benchmark = *changed.benchmark;
    sqlite3_stmt* statement = save_benchmark_.get();
    sqlite3_bind_int64(statement, 1, static_cast<int64_t>(benchmark.id()));
    sqlite3_bind_int(statement, 2, benchmark.state());
    sqlite3_bind_int64(statement, 3, benchmark.submitted_unix_ms());
    BindText(statement, 4, changed.request_id);
    BindBytes(statement, 5, RowMessage(benchmark).SerializeAsString());
    if (absl::Status status = Step(statement); !status.ok()) return status;
  }
  for (const v1::Run* run : changes.runs) {
    sqlite3_stmt* statement = save_run_.get();
    sqlite3_bind_int64(statement, 1, static_cast<int64_t>(run->key().benchmark_id()));
    sqlite3_bind_int64(statement, 2, run->key().job_index());
    sqlite3_bind_int64(statement, 3, run->key().repetition());
    sqlite3_bind_int(statement, 4, run->state());
    BindBytes(statement, 5, run->SerializeAsString());
    if (absl::Status status = Step(statement); !status.ok()) return status;
  }
  for (const StoreChanges::ChangedSetting& changed : changes.settings) {
    sqlite3_stmt* statement = changed.value.empty() ? remove_setting_.get() : save_setting_.get();
    BindText(statement, 1, changed.name);
    if (!changed.value.empty()) BindBytes(statement, 2, changed.value);
    if (absl::Status status = Step(statement); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace attnfleet::server
