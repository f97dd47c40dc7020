#include "server/job_store.h"

#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/spec.h"
#include "server/benchmark_entry.h"
#include "server/stored_check.h"

namespace attnfleet::server {
namespace {

// Rows into benchmarks, each handed on as soon as its last run has come.
class Loader : public RowReader {
 public:
  Loader(std::string store, const JobStore::Take& take) : store_(std::move(store)), take_(take) {}

  absl::Status TakeSetting(std::string_view, std::string_view) override { return absl::OkStatus(); }

  absl::Status TakeBenchmark(const BenchmarkRow& row) override {
    StoredBenchmark& stored = waiting_.emplace_back();
    if (!stored.benchmark.ParseFromArray(row.message.data(), static_cast<int>(row.message.size())) ||
        stored.benchmark.id() != static_cast<uint64_t>(row.id)) {
      return absl::DataLossError(
          absl::StrCat(store_, ": benchmark ", row.id, " is damaged; see attnfleet-server check"));
    }
    stored.request_id = row.request_id;
    // An ended one may come without its runs.
    stored.benchmark.set_runs_ended(HasEnded(stored.benchmark) ? stored.benchmark.runs_total() : 0);
    return absl::OkStatus();
  }

  absl::Status TakeRun(const RunRow& row) override {
    while (!waiting_.empty() && static_cast<int64_t>(waiting_.front().benchmark.id()) < row.benchmark_id) {
      if (absl::Status status = TakeFirst(); !status.ok()) return status;
    }
    v1::Run run;
    const bool parsed = run.ParseFromArray(row.message.data(), static_cast<int>(row.message.size()));
    if (!parsed || !IsKey(row, run.key()) || waiting_.empty() ||
        waiting_.front().benchmark.id() != run.key().benchmark_id()) {
      return absl::DataLossError(absl::StrCat(store_, ": run ", row.benchmark_id, "/", row.job_index, "/",
                                              row.repetition, " is damaged; see attnfleet-server check"));
    }
    StoredBenchmark& owner = waiting_.front();
    if (run.state() == v1::RUN_STATE_ENDED && !HasEnded(owner.benchmark)) {
      owner.benchmark.set_runs_ended(owner.benchmark.runs_ended() + 1);
    }
    owner.runs.push_back(std::move(run));
    return absl::OkStatus();
  }

  absl::Status Finish() {
    while (!waiting_.empty()) {
      if (absl::Status status = TakeFirst(); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  static bool IsKey(const RunRow& row, const v1::RunKey& key) {
    return static_cast<int64_t>(key.benchmark_id()) == row.benchmark_id && key.job_index() == row.job_index &&
           key.repetition() == row.repetition;
  }

  absl::Status TakeFirst() {
    StoredBenchmark first = std::move(waiting_.front());
    waiting_.pop_front();
    absl::Status status = take_(std::move(first));
    if (status.ok()) return status;
    return absl::Status(status.code(), absl::StrCat(store_, ": ", std::string(status.message())));
  }

  const std::string store_;
  const JobStore::Take& take_;
  std::deque<StoredBenchmark> waiting_;  // the first may get more runs
};

class SettingsReader : public RowReader {
 public:
  absl::Status TakeSetting(std::string_view name, std::string_view value) override {
    settings[std::string(name)] = value;
    return absl::OkStatus();
  }
  absl::Status TakeBenchmark(const BenchmarkRow&) override { return absl::OkStatus(); }
  absl::Status TakeRun(const RunRow&) override { return absl::OkStatus(); }

  std::map<std::string, std::string> settings;
};

}  // namespace

absl::StatusOr<v1::Benchmark> WithJobs(StoredBenchmark stored) {
  v1::Benchmark benchmark = std::move(stored.benchmark);
  if (absl::Status status = CheckStoredSpec(benchmark); !status.ok()) return status;
  for (v1::Job& job : ExpandJobs(benchmark)) *benchmark.add_jobs() = std::move(job);
  for (v1::Run& run : stored.runs) {
    const int64_t job = run.key().job_index();
    const int64_t repetition = run.key().repetition();
    if (job >= benchmark.jobs_size() || repetition >= benchmark.jobs(static_cast<int>(job)).runs_size()) {
      return absl::DataLossError(
          absl::StrCat("run ", FormatRunKey(run.key()), " is damaged: its benchmark has no such run"));
    }
    *benchmark.mutable_jobs(static_cast<int>(job))->mutable_runs(static_cast<int>(repetition)) = std::move(run);
  }
  EndUnassignedRuns(benchmark);
  return benchmark;
}

v1::Benchmark RowMessage(const v1::Benchmark& benchmark) {
  v1::Benchmark row;
  // Not the jobs, which may be many: copied field by field.
  row.set_id(benchmark.id());
  *row.mutable_spec() = benchmark.spec();
  row.set_state(benchmark.state());
  row.set_submitted_unix_ms(benchmark.submitted_unix_ms());
  row.set_ended_unix_ms(benchmark.ended_unix_ms());
  row.set_runs_total(benchmark.runs_total());
  row.set_cancel_reason(benchmark.cancel_reason());
  row.set_paused(benchmark.paused());
  *row.mutable_nodes() = benchmark.nodes();
  return row;
}

absl::Status JobStore::Load(const Take& take, bool runs_of_ended) {
  Loader loader(name(), take);
  if (absl::Status status = Read({.runs_of_ended = runs_of_ended}, loader); !status.ok()) return status;
  return loader.Finish();
}

absl::StatusOr<StoredBenchmark> JobStore::LoadBenchmark(uint64_t id) {
  absl::StatusOr<StoredBenchmark> found = absl::NotFoundError(absl::StrCat(name(), ": there is no benchmark ", id));
  const Take take = [&found](StoredBenchmark stored) {
    found = std::move(stored);
    return absl::OkStatus();
  };
  Loader loader(name(), take);
  if (absl::Status status = Read({.id = id}, loader); !status.ok()) return status;
  if (absl::Status status = loader.Finish(); !status.ok()) return status;
  return found;
}

absl::StatusOr<std::map<std::string, std::string>> JobStore::LoadSettings() {
  SettingsReader reader;
  if (absl::Status status = Read({.benchmarks = false}, reader); !status.ok()) return status;
  return std::move(reader.settings);
}

}  // namespace attnfleet::server
