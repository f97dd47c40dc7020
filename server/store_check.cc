#include "server/store_check.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/spec.h"
#include "server/stored_check.h"

namespace attnfleet::server {
namespace {

class Checker : public RowReader {
 public:
  absl::Status TakeSetting(std::string_view, std::string_view) override {
    ++report.settings;
    return absl::OkStatus();
  }

  absl::Status TakeBenchmark(const BenchmarkRow& row) override {
    ++report.benchmarks;
    const std::string name = absl::StrCat("benchmark ", row.id);
    v1::Benchmark benchmark;
    if (!benchmark.ParseFromArray(row.message.data(), static_cast<int>(row.message.size()))) {
      Problem(name, "its message does not parse");
      benchmarks_[row.id].damaged = true;
      return absl::OkStatus();
    }
    Expected& expected = benchmarks_[row.id];
    if (static_cast<int64_t>(benchmark.id()) != row.id) {
      Problem(name, absl::StrCat("its message is that of benchmark ", benchmark.id()));
    }
    if (benchmark.state() != row.state) {
      Problem(name, absl::StrCat("state is ", row.state, " in its column, ", benchmark.state(), " in its message"));
    }
    if (const std::string fault = SpecFault(benchmark); !fault.empty()) {
      Problem(name, fault);
      expected.damaged = true;
      return absl::OkStatus();
    }
    const v1::BenchmarkSpec& spec = benchmark.spec();
    expected.state = benchmark.state();
    expected.backends = static_cast<uint32_t>(spec.backends_size());
    expected.jobs_per_node = expected.backends * static_cast<uint32_t>(spec.shapes_size());
    expected.nodes = benchmark.nodes();
    expected.jobs = int64_t{expected.jobs_per_node} * std::max(1, benchmark.nodes_size());
    expected.repetitions = spec.repetitions();
    expected.runs_total = benchmark.runs_total();
    if (expected.jobs * expected.repetitions != expected.runs_total) {
      Problem(name, absl::StrCat("has ", expected.runs_total, " runs, but its spec gives ",
                                 expected.jobs * expected.repetitions));
    }
    if (HasEnded(benchmark) != (benchmark.ended_unix_ms() != 0)) {
      Problem(name, "its state and the time of its end disagree");
    }
    return absl::OkStatus();
  }

  absl::Status TakeRun(const RunRow& row) override {
    ++report.runs;
    const std::string name = absl::StrCat("run ", row.benchmark_id, "/", row.job_index, "/", row.repetition);
    const auto owner = benchmarks_.find(row.benchmark_id);
    if (owner == benchmarks_.end()) {
      Problem(name, "there is no such benchmark");
      return absl::OkStatus();
    }
    Expected& expected = owner->second;
    v1::Run run;
    if (!run.ParseFromArray(row.message.data(), static_cast<int>(row.message.size()))) {
      Problem(name, "its message does not parse");
      return absl::OkStatus();
    }
    if (static_cast<int64_t>(run.key().benchmark_id()) != row.benchmark_id || run.key().job_index() != row.job_index ||
        run.key().repetition() != row.repetition) {
      Problem(name, absl::StrCat("its message is that of run ", FormatRunKey(run.key())));
    }
    if (run.state() != row.state) {
      Problem(name, absl::StrCat("state is ", row.state, " in its column, ", run.state(), " in its message"));
    }
    ++expected.rows;
    const bool ended = run.state() == v1::RUN_STATE_ENDED;
    if (ended) ++expected.ended;
    if (!ended && run.has_result()) Problem(name, "has a result, but has not ended");
    if (expected.damaged) return absl::OkStatus();
    const uint32_t job = run.key().job_index();
    if (job >= expected.jobs || run.key().repetition() >= expected.repetitions) {
      Problem(name, "its benchmark's spec has no such run");
      return absl::OkStatus();
    }
    const v1::Node* node =
        expected.nodes.empty() ? nullptr : &expected.nodes[static_cast<int>(job / expected.jobs_per_node)];
    const std::string fault = RunFault(run, node, job / expected.backends, busy_, expected.active_groups);
    if (!fault.empty()) Problem(name, fault);
    return absl::OkStatus();
  }

  void Finish() {
    for (const auto& [id, expected] : benchmarks_) {
      if (expected.damaged) continue;
      const std::string name = absl::StrCat("benchmark ", id);
      const std::string ended = absl::StrCat(expected.ended, " of its ", expected.runs_total, " runs have a result");
      if (expected.state == v1::BENCHMARK_STATE_CANCELLED) {
        // Runs that were never given out have no row.
        if (expected.rows != expected.ended) Problem(name, "was cancelled, but some of its runs have not ended");
      } else if (expected.state == v1::BENCHMARK_STATE_FINISHED) {
        if (expected.ended != expected.runs_total) Problem(name, absl::StrCat("has finished, but ", ended));
      } else if (expected.ended == expected.runs_total) {
        Problem(name, "has not finished, but all of its runs have a result");
      }
    }
  }

  StoreReport report;

 private:
  struct Expected {
    bool damaged = false;
    int state = 0;
    uint32_t backends = 0;
    uint32_t jobs_per_node = 0;
    google::protobuf::RepeatedPtrField<v1::Node> nodes;
    std::set<uint32_t> active_groups;
    int64_t jobs = 0;
    int64_t repetitions = 0;
    int64_t runs_total = 0;
    int64_t rows = 0;
    int64_t ended = 0;  // of them
  };

  void Problem(const std::string& where, const std::string& what) {
    ++report.found;
    if (report.problems.size() < kMostProblems) report.problems.push_back(absl::StrCat(where, ": ", what));
  }

  std::map<int64_t, Expected> benchmarks_;
  BusySlots busy_;
};

}  // namespace

absl::StatusOr<StoreReport> CheckStore(JobStore& store) {
  Checker checker;
  if (absl::Status status = store.Read({}, checker); !status.ok()) return status;
  checker.Finish();
  return std::move(checker.report);
}

}  // namespace attnfleet::server
