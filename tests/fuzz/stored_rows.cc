// Rows of the store with any bytes: loading refuses them, or gives benchmarks with which a coordinator can go on.

#include <sqlite3.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fleet_fixture.h"
#include "server/scheduler.h"
#include "server/sqlite_store.h"
#include "server/stored_check.h"
#include "support.h"

namespace attnfleet::server {
namespace {

using fuzz::Check;

// A database that lives in memory as long as somebody has it open.
constexpr char kDatabase[] = "file:fuzz?mode=memory&cache=shared";
constexpr int64_t kLease = 1'000;
constexpr int kMaxRows = 16;

class Rows {
 public:
  Rows() {
    sqlite3_config(SQLITE_CONFIG_URI, 1);
    store_ = *SqliteStore::Open(kDatabase);
    Check(sqlite3_open(kDatabase, &database_) == SQLITE_OK, "the database can be opened twice");
  }

  void Replace(fuzz::Input input) {
    Check(sqlite3_exec(database_, "DELETE FROM runs; DELETE FROM benchmarks; BEGIN", nullptr, nullptr, nullptr) ==
              SQLITE_OK,
          "rows can be deleted");
    for (int i = 0; i < kMaxRows && !input.empty(); ++i) {
      const int kind = input.Byte();
      const std::string_view message = input.Bytes();
      if (kind % 2 == 0) {
        Insert(
            "INSERT OR REPLACE INTO benchmarks (id, state, submitted_unix_ms, request_id, message) "
            "VALUES (?1, 0, 0, '', ?2)",
            kind / 2, message);
      } else {
        // The columns of a run are those of its message's key, or it would be refused for that alone.
        v1::Run run;
        const bool parsed = run.ParseFromArray(message.data(), static_cast<int>(message.size()));
        Insert(
            absl::StrCat("INSERT OR REPLACE INTO runs (benchmark_id, job_index, repetition, state, message) VALUES (",
                         parsed ? static_cast<int64_t>(run.key().benchmark_id()) : 1, ", ?1, ", run.key().repetition(),
                         ", 0, ?2)"),
            parsed ? int64_t{run.key().job_index()} : i, message);
      }
    }
    Check(sqlite3_exec(database_, "COMMIT", nullptr, nullptr, nullptr) == SQLITE_OK, "rows can be stored");
  }

  SqliteStore& store() { return *store_; }

 private:
  void Insert(const std::string& sql, int64_t number, std::string_view message) {
    sqlite3_stmt* statement = nullptr;
    Check(sqlite3_prepare_v2(database_, sql.c_str(), -1, &statement, nullptr) == SQLITE_OK, "the schema is known");
    sqlite3_bind_int64(statement, 1, number);
    sqlite3_bind_blob(statement, 2, message.data(), static_cast<int>(message.size()), SQLITE_TRANSIENT);
    Check(sqlite3_step(statement) == SQLITE_DONE, "a row can be inserted");
    sqlite3_finalize(statement);
  }

  std::unique_ptr<SqliteStore> store_;
  sqlite3* database_ = nullptr;
};

void GoOn(std::vector<v1::Benchmark> benchmarks) {
  Scheduler scheduler(kLease);
  for (v1::Benchmark& benchmark : benchmarks) {
    std::vector<v1::Run> runs;
    for (v1::Job& job : *benchmark.mutable_jobs()) {
      for (v1::Run& run : *job.mutable_runs()) {
        if (run.attempt() > 0 || run.state() == v1::RUN_STATE_ENDED) runs.push_back(std::move(run));
      }
    }
    benchmark.clear_jobs();
    const absl::Status restored = scheduler.Restore(benchmark, std::move(runs), 1'000);
    Check(restored.ok(), std::string(restored.message()));
  }
  const auto check = [&scheduler] {
    const absl::Status status = scheduler.CheckInvariants();
    Check(status.ok(), std::string(status.message()));
  };
  check();
  Effects effects;
  scheduler.WorkerJoined(MakeHello("w0", 2), 1'500, effects);
  check();
  scheduler.Tick(1'000 + 2 * kLease, effects);
  check();
}

}  // namespace
}  // namespace attnfleet::server

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static attnfleet::server::Rows& rows = *new attnfleet::server::Rows;
  rows.Replace(attnfleet::fuzz::Input(data, size));
  std::vector<attnfleet::v1::Benchmark> benchmarks;
  attnfleet::server::BusySlots busy;
  const absl::Status loaded = rows.store().Load([&](attnfleet::server::StoredBenchmark stored) {
    absl::StatusOr<attnfleet::v1::Benchmark> whole = attnfleet::server::WithJobs(std::move(stored));
    if (!whole.ok()) return whole.status();
    benchmarks.push_back(*std::move(whole));
    return attnfleet::server::CheckStored(benchmarks.back(), busy);
  });
  if (!loaded.ok()) return 0;
  attnfleet::server::GoOn(std::move(benchmarks));
  return 0;
}
