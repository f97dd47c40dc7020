#include "server/store_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fleet_fixture.h"
#include "server/job_store.h"

namespace attnfleet::server {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Gives the rows that a test makes up.
class MadeUpStore : public JobStore {
 public:
  std::string name() const override { return "store made up"; }
  absl::Status Save(const StoreChanges&) override { return absl::UnimplementedError("read only"); }
  absl::Status Delete(const std::vector<uint64_t>&) override { return absl::UnimplementedError("read only"); }
  absl::Status Fill(const Source&) override { return absl::UnimplementedError("read only"); }
  absl::StatusOr<std::unique_ptr<JobStore>> OpenReader() override { return absl::UnimplementedError("no other"); }
  absl::Status Read(const Selection&, RowReader& reader) override {
    for (const auto& [row, message] : benchmarks) {
      if (absl::Status status = reader.TakeBenchmark({row.id, row.state, row.request_id, message}); !status.ok()) {
        return status;
      }
    }
    for (const auto& [row, message] : runs) {
      if (absl::Status status = reader.TakeRun({row.benchmark_id, row.job_index, row.repetition, row.state, message});
          !status.ok()) {
        return status;
      }
    }
    return absl::OkStatus();
  }

  std::vector<std::pair<BenchmarkRow, std::string>> benchmarks;
  std::vector<std::pair<RunRow, std::string>> runs;
};

class StoreCheckTest : public testing::Test {
 protected:
  // Benchmark 1 with one job of two repetitions, both measured.
  StoreCheckTest() {
    benchmark_.set_id(1);
    *benchmark_.mutable_spec() = MakeSpec({"eager"}, 1, 2);
    benchmark_.set_state(v1::BENCHMARK_STATE_FINISHED);
    benchmark_.set_ended_unix_ms(5);
    benchmark_.set_runs_total(2);
    for (uint32_t repetition = 0; repetition < 2; ++repetition) {
      v1::Run& run = runs_.emplace_back();
      run.mutable_key()->set_benchmark_id(1);
      run.mutable_key()->set_repetition(repetition);
      run.set_state(v1::RUN_STATE_ENDED);
      run.mutable_result()->set_outcome(v1::OUTCOME_MEASURED);
    }
  }

  void Put() {
    store_.benchmarks = {{{1, benchmark_.state(), "", ""}, benchmark_.SerializeAsString()}};
    store_.runs.clear();
    for (const v1::Run& run : runs_) {
      store_.runs.push_back(
          {{1, run.key().job_index(), run.key().repetition(), run.state(), ""}, run.SerializeAsString()});
    }
  }

  std::vector<std::string> Problems() {
    const absl::StatusOr<StoreReport> report = CheckStore(store_);
    EXPECT_EQ(report.status(), absl::OkStatus());
    if (!report.ok()) return {};
    EXPECT_EQ(report->found, report->problems.size());
    return report->problems;
  }

  v1::Benchmark benchmark_;
  std::vector<v1::Run> runs_;
  MadeUpStore store_;
};

TEST_F(StoreCheckTest, ConsistentStoreHasNoProblem) {
  Put();
  EXPECT_THAT(Problems(), IsEmpty());
  benchmark_.set_state(v1::BENCHMARK_STATE_CANCELLED);  // the second was never given out
  runs_.pop_back();
  Put();
  EXPECT_THAT(Problems(), IsEmpty());
}

TEST_F(StoreCheckTest, RowsThatDoNotParseAreNamed) {
  Put();
  store_.benchmarks[0].second = "\xff\xff";
  store_.runs[1].second = "\xff\xff";
  EXPECT_THAT(Problems(),
              ElementsAre("benchmark 1: its message does not parse", "run 1/0/1: its message does not parse"));
}

TEST_F(StoreCheckTest, ColumnsThatDisagreeWithTheMessageAreNamed) {
  Put();
  store_.benchmarks[0].first.state = v1::BENCHMARK_STATE_RUNNING;
  store_.runs[0].first.state = v1::RUN_STATE_QUEUED;
  store_.runs[1].second = runs_[0].SerializeAsString();
  EXPECT_THAT(Problems(), ElementsAre(HasSubstr("benchmark 1: state is 2 in its column, 3"),
                                      HasSubstr("run 1/0/0: state is 1 in its column, 4"),
                                      HasSubstr("run 1/0/1: its message is that of run")));
}

TEST_F(StoreCheckTest, RunsWithoutAPlaceAreNamed) {
  runs_[1].mutable_key()->set_job_index(7);
  Put();
  store_.runs.push_back({{2, 0, 0, v1::RUN_STATE_ENDED, ""}, runs_[0].SerializeAsString()});
  EXPECT_THAT(Problems(), ElementsAre(HasSubstr("run 1/7/1: its benchmark's spec has no such run"),
                                      HasSubstr("run 2/0/0: there is no such benchmark")));
}

TEST_F(StoreCheckTest, StatesThatDisagreeAreNamed) {
  runs_.pop_back();
  Put();
  EXPECT_THAT(Problems(), ElementsAre(HasSubstr("benchmark 1: has finished, but 1 of its 2 runs")));
  benchmark_.set_state(v1::BENCHMARK_STATE_RUNNING);
  Put();
  EXPECT_THAT(Problems(), ElementsAre(HasSubstr("the time of its end")));
  benchmark_.set_state(v1::BENCHMARK_STATE_CANCELLED);
  runs_[0].clear_result();
  runs_[0].set_state(v1::RUN_STATE_RUNNING);
  Put();
  EXPECT_THAT(Problems(), ElementsAre(HasSubstr("run 1/0/0: it is active, but nowhere"), HasSubstr("have not ended")));
  runs_[0].set_state(v1::RUN_STATE_ENDED);
  Put();
  EXPECT_THAT(Problems(), ElementsAre(HasSubstr("ended without an outcome")));
}

// An open benchmark with `spec` and these active runs on slots of worker w: job, slot.
struct Active {
  uint32_t job;
  const char* slot;
};
void AddOpen(MadeUpStore& store, uint64_t id, const v1::BenchmarkSpec& spec, const std::vector<v1::Node>& nodes,
             const std::vector<Active>& runs) {
  v1::Benchmark benchmark;
  benchmark.set_id(id);
  *benchmark.mutable_spec() = spec;
  for (const v1::Node& node : nodes) *benchmark.add_nodes() = node;
  benchmark.set_state(v1::BENCHMARK_STATE_RUNNING);
  benchmark.set_runs_total(static_cast<uint32_t>(ExpandJobs(benchmark).size()) *
                           static_cast<uint32_t>(spec.repetitions()));
  const auto row = static_cast<int64_t>(id);
  store.benchmarks.push_back({{row, benchmark.state(), "", ""}, benchmark.SerializeAsString()});
  for (const Active& active : runs) {
    v1::Run run;
    run.mutable_key()->set_benchmark_id(id);
    run.mutable_key()->set_job_index(active.job);
    run.set_state(v1::RUN_STATE_RUNNING);
    run.set_worker("w");
    run.set_slot(active.slot);
    run.set_attempt(1);
    store.runs.push_back({{row, active.job, 0, run.state(), ""}, run.SerializeAsString()});
  }
}

TEST_F(StoreCheckTest, ActiveRunsThatACoordinatorWouldRefuseAreNamed) {
  const v1::BenchmarkSpec spec = MakeSpec({"eager", "sdpa"}, 2, 2);  // groups: jobs 0 and 1, 2 and 3
  AddOpen(store_, 1, spec, {}, {{0, "cpu0"}, {1, "cpu1"}, {2, "cpu2"}});
  AddOpen(store_, 2, spec, {}, {{0, "cpu3"}, {2, "cpu0"}});
  EXPECT_THAT(Problems(), ElementsAre("run 1/1/0: another run of its shape is active too",
                                      "run 2/2/0: another run is on its slot"));
}

TEST_F(StoreCheckTest, ActiveRunsBelongToTheirNodes) {
  v1::BenchmarkSpec spec = MakeSpec({"eager", "sdpa"}, 2, 2);
  spec.set_placement(v1::PLACEMENT_EVERY);
  std::vector<v1::Node> nodes(2);
  for (size_t i = 0; i < nodes.size(); ++i) {
    nodes[i].set_worker("w");
    nodes[i].set_slot(absl::StrCat("cpu", i));
  }
  AddOpen(store_, 1, spec, nodes, {{3, "cpu0"}, {7, "cpu1"}});
  EXPECT_THAT(Problems(), IsEmpty());
  AddOpen(store_, 2, spec, nodes, {{4, "cpu2"}, {8, "cpu3"}});
  EXPECT_THAT(Problems(), ElementsAre("run 2/4/0: it is active elsewhere than on its node",
                                      "run 2/8/0: its benchmark's spec has no such run"));
}

TEST_F(StoreCheckTest, StatesOutcomesAndNumbersThatThereAreNotAreNamed) {
  runs_[0].set_state(static_cast<v1::RunState>(9));
  runs_[0].clear_result();
  runs_[1].mutable_result()->set_outcome(static_cast<v1::Outcome>(99));
  benchmark_.set_state(v1::BENCHMARK_STATE_RUNNING);
  benchmark_.clear_ended_unix_ms();
  Put();
  v1::Benchmark nought = benchmark_;
  nought.set_id(0);
  store_.benchmarks.insert(store_.benchmarks.begin(), {{0, nought.state(), "", ""}, nought.SerializeAsString()});
  EXPECT_THAT(Problems(), ElementsAre("benchmark 0: no benchmark has this number", "run 1/0/0: there is no state 9",
                                      "run 1/0/1: it has ended without an outcome"));
}

TEST_F(StoreCheckTest, NumberOfRunsIsThatOfTheSpec) {
  benchmark_.set_runs_total(3);
  Put();
  EXPECT_THAT(Problems(), ElementsAre(HasSubstr("has 3 runs, but its spec gives 2"), HasSubstr("has finished")));
}

}  // namespace
}  // namespace attnfleet::server
