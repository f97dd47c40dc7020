// How long a coordinator takes to come back with many jobs, and what it takes in memory.
//   store_recovery STORE [JOBS [ENDED_PER_CENT [STEPS]]]     STORE: a file to be made, or postgresql://... of an empty
//                                                            database
// Fills the store with JOBS jobs (default 1,000,000) of one run each, 1,000 in a benchmark, none of which has ended.
// ENDED_PER_CENT of the runs (default 50) have a result, with the times of STEPS steps (default 40). Then opens it
// anew, twice: reading the rows alone, and as a coordinator.

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/spec.h"
#include "server/coordinator.h"
#include "server/leadership.h"
#include "server/postgres_store.h"
#include "server/sqlite_store.h"

namespace attnfleet::server {
namespace {

constexpr int kJobsPerBenchmark = 1'000;

double Seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Of this process: on a busy machine it says more than the time.
double CpuSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

double ResidentMiB() {
  std::ifstream statm("/proc/self/statm");
  double total = 0;
  double resident = 0;
  statm >> total >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
}

[[noreturn]] void Die(const absl::Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

class Place {
 public:
  explicit Place(std::string where) : where_(std::move(where)) {}

  std::unique_ptr<JobStore> Open() {
    if (!absl::StartsWith(where_, "postgresql://")) return Checked<SqliteStore>(SqliteStore::Open(where_));
    if (absl::Status status = PostgresStore::Migrate(where_); !status.ok()) Die(status);
    if (leadership_) leadership_->Resign();
    leadership_.emplace(where_, "bench");
    const absl::StatusOr<int64_t> epoch = leadership_->TryToLead();
    if (!epoch.ok()) Die(epoch.status());
    return Checked<PostgresStore>(PostgresStore::Open(where_, &*leadership_));
  }

 private:
  template <typename T>
  static std::unique_ptr<JobStore> Checked(absl::StatusOr<std::unique_ptr<T>> store) {
    if (!store.ok()) Die(store.status());
    return *std::move(store);
  }

  const std::string where_;
  std::optional<Leadership> leadership_;
};

v1::Benchmark MakeBenchmark(uint64_t id) {
  v1::Benchmark benchmark;
  benchmark.set_id(id);
  v1::BenchmarkSpec& spec = *benchmark.mutable_spec();
  spec.add_backends("eager");
  spec.add_backends("sdpa");
  for (int i = 1; i <= kJobsPerBenchmark / 2; ++i) {
    v1::Shape* shape = spec.add_shapes();
    shape->set_batch(i);
    shape->set_sequence_length(64);
  }
  spec.set_repetitions(1);
  if (absl::Status status = ApplyPreset(spec); !status.ok()) Die(status);
  benchmark.set_state(v1::BENCHMARK_STATE_RUNNING);
  benchmark.set_runs_total(kJobsPerBenchmark);
  return benchmark;
}

v1::Run MakeRun(uint64_t benchmark, uint32_t job, int steps) {
  v1::Run run;
  run.mutable_key()->set_benchmark_id(benchmark);
  run.mutable_key()->set_job_index(job);
  run.set_state(v1::RUN_STATE_ENDED);
  run.set_attempt(1);
  run.set_worker("worker-0123");
  run.set_slot("GPU-01234567-89ab-cdef-0123-456789abcdef");
  run.mutable_result()->set_outcome(v1::OUTCOME_MEASURED);
  for (int i = 0; i < steps; ++i) run.mutable_result()->mutable_measurement()->add_step_seconds(0.0125);
  return run;
}

void Fill(JobStore& store, int jobs, int ended_per_cent, int steps) {
  int filled = 0;
  const absl::Status status = store.Fill([&, benchmark = v1::Benchmark(), runs = std::vector<v1::Run>()](
                                             StoreChanges& changes) mutable -> absl::StatusOr<bool> {
    if (filled >= jobs) return false;
    benchmark = MakeBenchmark(static_cast<uint64_t>(filled / kJobsPerBenchmark + 1));
    runs.clear();
    for (uint32_t job = 0; job < kJobsPerBenchmark * static_cast<uint32_t>(ended_per_cent) / 100; ++job) {
      runs.push_back(MakeRun(benchmark.id(), job, steps));
    }
    changes.benchmarks.push_back({&benchmark, absl::StrCat("request-", benchmark.id())});
    for (const v1::Run& run : runs) changes.runs.push_back(&run);
    filled += kJobsPerBenchmark;
    return true;
  });
  if (!status.ok()) Die(status);
}

int Main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: store_recovery FILE|postgresql://... [JOBS [ENDED_PER_CENT [STEPS]]]\n");
    return 2;
  }
  const int jobs = argc > 2 ? std::atoi(argv[2]) : 1'000'000;
  const int ended_per_cent = argc > 3 ? std::atoi(argv[3]) : 50;
  const int steps = argc > 4 ? std::atoi(argv[4]) : 40;
  Place place(argv[1]);
  double start = Seconds();
  Fill(*place.Open(), jobs, ended_per_cent, steps);
  std::printf("filled %d jobs, %d %% with a result: %.2f s\n", jobs, ended_per_cent, Seconds() - start);

  start = Seconds();
  std::unique_ptr<JobStore> store = place.Open();
  const double opened = Seconds() - start;
  size_t runs = 0;
  const absl::Status loaded = store->Load([&runs](const StoredBenchmark& stored) {
    runs += stored.runs.size();
    return absl::OkStatus();
  });
  if (!loaded.ok()) Die(loaded);
  std::printf("opened in %.2f s; read %zu rows of runs, %.2f s together\n", opened, runs, Seconds() - start);
  store.reset();

  const double before = ResidentMiB();
  start = Seconds();
  const double cpu = CpuSeconds();
  store = place.Open();
  Coordinator::Options options;
  options.now_unix_ms = [] { return int64_t{1}; };
  const absl::StatusOr<std::unique_ptr<Coordinator>> coordinator = Coordinator::Start(*store, options);
  if (!coordinator.ok()) Die(coordinator.status());
  const double seconds = Seconds() - start;
  const double grown = ResidentMiB() - before;
  std::printf("coordinator is back after %.2f s (%.2f s of CPU), %.0f MiB more: %.0f bytes per job\n", seconds,
              CpuSeconds() - cpu, grown, grown * (1 << 20) / jobs);
  return 0;
}

}  // namespace
}  // namespace attnfleet::server

int main(int argc, char** argv) { return attnfleet::server::Main(argc, argv); }
