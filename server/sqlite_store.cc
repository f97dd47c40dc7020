#include "server/sqlite_store.h"

#include <array>
#include <cstdint>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/spec.h"
#include "server/stored_check.h"

namespace attnfleet::server {
namespace {

// Script i takes the schema from version i to i + 1. A script that was released is never edited.
constexpr std::array<const char*, 1> kMigrations = {
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
    )sql"};

constexpr int kBusyTimeoutMs = 5'000;

void BindMessage(sqlite3_stmt* statement, int index, const google::protobuf::MessageLite& message) {
  const std::string bytes = message.SerializeAsString();
  sqlite3_bind_blob64(statement, index, bytes.data(), bytes.size(), SQLITE_TRANSIENT);
}

bool ParseColumn(sqlite3_stmt* statement, int column, google::protobuf::MessageLite& message) {
  return message.ParseFromArray(sqlite3_column_blob(statement, column), sqlite3_column_bytes(statement, column));
}

}  // namespace

absl::StatusOr<std::unique_ptr<SqliteStore>> SqliteStore::Open(const std::string& path) {
  sqlite3* database = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &database,
                                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<SqliteStore> store(new SqliteStore(path, database));
  if (code != SQLITE_OK) return store->Error(code);
  if (absl::Status status = store->Initialize(); !status.ok()) return status;
  return store;
}

absl::Status SqliteStore::Error(int code) const {
  const std::string text = absl::StrCat("store ", path_, ": ",
                                        database_ != nullptr ? sqlite3_errmsg(database_.get()) : sqlite3_errstr(code));
  switch (code & 0xff) {
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(absl::StrCat(text, " (No space left on device: free some)"));
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(
          absl::StrCat(text, "; the file is damaged or no attnfleet store. Restore it, or move it away to start anew"));
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
  const absl::Status status = code == SQLITE_DONE ? absl::OkStatus() : Error(code);
  sqlite3_reset(statement);
  sqlite3_clear_bindings(statement);
  return status;
}

absl::Status SqliteStore::Initialize() {
  sqlite3_busy_timeout(database_.get(), kBusyTimeoutMs);
  if (absl::Status status = CheckIntegrity(); !status.ok()) return status;
  if (absl::Status status = Execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;");
      !status.ok()) {
    return status;
  }
  if (absl::Status status = Migrate(); !status.ok()) return status;
  absl::StatusOr<Statement> benchmark = Prepare(
      "INSERT INTO benchmarks (id, state, submitted_unix_ms, request_id, message) VALUES (?1, ?2, ?3, ?4, ?5) "
      "ON CONFLICT (id) DO UPDATE SET state = ?2, message = ?5");
  if (!benchmark.ok()) return benchmark.status();
  absl::StatusOr<Statement> run = Prepare(
      "INSERT OR REPLACE INTO runs (benchmark_id, job_index, repetition, state, message) VALUES (?1, ?2, ?3, ?4, ?5)");
  if (!run.ok()) return run.status();
  save_benchmark_ = std::move(*benchmark);
  save_run_ = std::move(*run);
  return absl::OkStatus();
}

absl::Status SqliteStore::CheckIntegrity() {
  absl::StatusOr<Statement> check = Prepare("PRAGMA quick_check(1)");
  if (!check.ok()) return check.status();
  const int code = sqlite3_step(check->get());
  if (code != SQLITE_ROW) return Error(code);
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(check->get(), 0));
  if (text != nullptr && std::string_view(text) == "ok") return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("store ", path_, ": ", text != nullptr ? text : "unreadable",
                                          "; the file is damaged. Restore it, or move it away to start anew"));
}

absl::Status SqliteStore::Migrate() {
  int version = 0;
  {
    absl::StatusOr<Statement> query = Prepare("PRAGMA user_version");
    if (!query.ok()) return query.status();
    if (const int code = sqlite3_step(query->get()); code != SQLITE_ROW) return Error(code);
    version = sqlite3_column_int(query->get(), 0);
  }
  const int known = static_cast<int>(kMigrations.size());
  if (version > known) {
    return absl::FailedPreconditionError(absl::StrCat("store ", path_, ": a newer attnfleet wrote it (schema ", version,
                                                      ", this program knows ", known, "); use that version"));
  }
  for (; version < known; ++version) {
    const absl::Status status = Execute(absl::StrCat("BEGIN IMMEDIATE;", kMigrations[static_cast<size_t>(version)],
                                                     "PRAGMA user_version=", version + 1, ";COMMIT;"));
    if (!status.ok()) {
      sqlite3_exec(database_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
      return status;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<StoredBenchmark>> SqliteStore::Load() {
  std::vector<StoredBenchmark> result;
  absl::StatusOr<Statement> query = Prepare("SELECT id, request_id, message FROM benchmarks ORDER BY id");
  if (!query.ok()) return query.status();
  int code = SQLITE_ROW;
  while ((code = sqlite3_step(query->get())) == SQLITE_ROW) {
    StoredBenchmark& stored = result.emplace_back();
    const int64_t id = sqlite3_column_int64(query->get(), 0);
    if (!ParseColumn(query->get(), 2, stored.benchmark) || stored.benchmark.id() != static_cast<uint64_t>(id)) {
      return absl::DataLossError(absl::StrCat("store ", path_, ": benchmark ", id, " is damaged"));
    }
    stored.request_id = reinterpret_cast<const char*>(sqlite3_column_text(query->get(), 1));
    if (absl::Status status = CheckStoredSpec(stored.benchmark.id(), stored.benchmark.spec()); !status.ok()) {
      return absl::DataLossError(absl::StrCat("store ", path_, ": ", std::string(status.message())));
    }
    stored.benchmark.clear_jobs();
    stored.benchmark.set_runs_ended(0);
    for (v1::Job& job : ExpandJobs(stored.benchmark.id(), stored.benchmark.spec())) {
      *stored.benchmark.add_jobs() = std::move(job);
    }
  }
  if (code != SQLITE_DONE) return Error(code);
  if (absl::Status status = LoadRuns(result); !status.ok()) return status;
  return result;
}

absl::Status SqliteStore::LoadRuns(std::vector<StoredBenchmark>& benchmarks) {
  std::map<uint64_t, v1::Benchmark*> by_id;
  for (StoredBenchmark& stored : benchmarks) by_id[stored.benchmark.id()] = &stored.benchmark;
  absl::StatusOr<Statement> query = Prepare("SELECT message FROM runs");
  if (!query.ok()) return query.status();
  int code = SQLITE_ROW;
  while ((code = sqlite3_step(query->get())) == SQLITE_ROW) {
    v1::Run run;
    const bool parsed = ParseColumn(query->get(), 0, run);
    const auto benchmark = by_id.find(run.key().benchmark_id());
    const int job = static_cast<int>(run.key().job_index());
    const int repetition = static_cast<int>(run.key().repetition());
    if (!parsed || benchmark == by_id.end() || job < 0 || job >= benchmark->second->jobs_size() || repetition < 0 ||
        repetition >= benchmark->second->jobs(job).runs_size()) {
      return absl::DataLossError(absl::StrCat("store ", path_, ": run ", FormatRunKey(run.key()), " is damaged"));
    }
    v1::Benchmark& owner = *benchmark->second;
    if (run.state() == v1::RUN_STATE_ENDED) owner.set_runs_ended(owner.runs_ended() + 1);
    *owner.mutable_jobs(job)->mutable_runs(repetition) = std::move(run);
  }
  return code == SQLITE_DONE ? absl::OkStatus() : Error(code);
}

absl::Status SqliteStore::Save(const StoreChanges& changes) {
  if (absl::Status status = Execute("BEGIN IMMEDIATE"); !status.ok()) return status;
  absl::Status status = SaveRows(changes);
  if (status.ok()) status = Execute("COMMIT");
  // Also after a COMMIT that failed: it leaves the transaction open.
  if (!status.ok()) sqlite3_exec(database_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
  return status;
}

absl::Status SqliteStore::SaveRows(const StoreChanges& changes) {
  for (const StoreChanges::ChangedBenchmark& changed : changes.benchmarks) {
    const v1::Benchmark& benchmark = *changed.benchmark;
    v1::Benchmark row;
    row.set_id(benchmark.id());
    *row.mutable_spec() = benchmark.spec();
    row.set_state(benchmark.state());
    row.set_submitted_unix_ms(benchmark.submitted_unix_ms());
    row.set_ended_unix_ms(benchmark.ended_unix_ms());
    row.set_runs_total(benchmark.runs_total());
    row.set_cancel_reason(benchmark.cancel_reason());
    sqlite3_stmt* statement = save_benchmark_.get();
    sqlite3_bind_int64(statement, 1, static_cast<int64_t>(benchmark.id()));
    sqlite3_bind_int(statement, 2, benchmark.state());
    sqlite3_bind_int64(statement, 3, benchmark.submitted_unix_ms());
    sqlite3_bind_text(statement, 4, changed.request_id.c_str(), -1, SQLITE_TRANSIENT);
    BindMessage(statement, 5, row);
    if (absl::Status status = Step(statement); !status.ok()) return status;
  }
  for (const v1::Run* run : changes.runs) {
    sqlite3_stmt* statement = save_run_.get();
    sqlite3_bind_int64(statement, 1, static_cast<int64_t>(run->key().benchmark_id()));
    sqlite3_bind_int64(statement, 2, run->key().job_index());
    sqlite3_bind_int64(statement, 3, run->key().repetition());
    sqlite3_bind_int(statement, 4, run->state());
    BindMessage(statement, 5, *run);
    if (absl::Status status = Step(statement); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace attnfleet::server
