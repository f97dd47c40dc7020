#include "server/stored_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "fleet_fixture.h"

namespace attnfleet::server {
namespace {

// Two jobs of one group, two runs each: one has ended, one is on a slot.
v1::Benchmark MakeStored() {
  v1::Benchmark benchmark;
  benchmark.set_id(3);
  *benchmark.mutable_spec() = MakeSpec({"eager", "sdpa"}, 1, 2);
  benchmark.set_state(v1::BENCHMARK_STATE_RUNNING);
  benchmark.set_runs_total(4);
  benchmark.set_runs_ended(1);
  for (v1::Job& job : ExpandJobs(3, benchmark.spec())) *benchmark.add_jobs() = std::move(job);
  benchmark.mutable_jobs(0)->mutable_runs(0)->set_state(v1::RUN_STATE_ENDED);
  benchmark.mutable_jobs(0)->mutable_runs(0)->mutable_result()->set_outcome(v1::OUTCOME_MEASURED);
  v1::Run& active = *benchmark.mutable_jobs(1)->mutable_runs(0);
  active.set_state(v1::RUN_STATE_RUNNING);
  active.set_worker("w");
  active.set_slot("cpu0");
  active.set_attempt(1);
  return benchmark;
}

absl::Status Check(const v1::Benchmark& stored) {
  BusySlots busy;
  return CheckStored(stored, busy);
}

TEST(CheckStored, WhatACoordinatorSavesIsFine) { EXPECT_EQ(Check(MakeStored()), absl::OkStatus()); }

TEST(CheckStored, EveryFaultNamesWhoseItIs) {
  const auto error = [](const std::function<void(v1::Benchmark&)>& damage) {
    v1::Benchmark stored = MakeStored();
    damage(stored);
    const absl::Status status = Check(stored);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    return std::string(status.message());
  };
  using testing::HasSubstr;
  const auto run = [](v1::Benchmark& benchmark, int job, int repetition) {
    return benchmark.mutable_jobs(job)->mutable_runs(repetition);
  };
  EXPECT_THAT(error([](auto& benchmark) { benchmark.set_runs_total(5); }), HasSubstr("says 5 runs, its spec makes 4"));
  EXPECT_THAT(error([](auto& benchmark) { benchmark.set_runs_ended(2); }), HasSubstr("benchmark 3"));
  EXPECT_THAT(error([](auto& benchmark) { benchmark.set_state(v1::BENCHMARK_STATE_FINISHED); }),
              HasSubstr("it is over, but not all its runs"));
  EXPECT_THAT(error([&](auto& benchmark) { run(benchmark, 0, 0)->clear_result(); }),
              HasSubstr("run 3/0/0 is damaged: it has ended without an outcome"));
  EXPECT_THAT(error([&](auto& benchmark) { run(benchmark, 1, 0)->clear_worker(); }),
              HasSubstr("run 3/1/0 is damaged: it is active, but nowhere"));
  EXPECT_THAT(error([&](auto& benchmark) { run(benchmark, 1, 1)->set_state(static_cast<v1::RunState>(9)); }),
              HasSubstr("there is no state 9"));
  EXPECT_THAT(error([&](auto& benchmark) {
                *run(benchmark, 0, 1) = *run(benchmark, 1, 0);
                run(benchmark, 0, 1)->set_slot("cpu1");
              }),
              HasSubstr("another run of its shape is active too"));
  EXPECT_THAT(error([&](auto& benchmark) { *run(benchmark, 0, 1) = *run(benchmark, 1, 0); }),
              HasSubstr("another run is on its slot"));
}

TEST(CheckStoredSpec, OnlyWhatCanBeExpanded) {
  v1::Benchmark head;
  head.set_id(1);
  *head.mutable_spec() = MakeSpec({"eager"}, 3, 5);
  EXPECT_EQ(CheckStoredSpec(head), absl::OkStatus());
  head.add_nodes();
  EXPECT_EQ(CheckStoredSpec(head).code(), absl::StatusCode::kDataLoss) << "nodes without the placement";
  head.mutable_spec()->set_placement(v1::PLACEMENT_EVERY);
  EXPECT_EQ(CheckStoredSpec(head), absl::OkStatus());
  head.mutable_spec()->set_repetitions(1'000'000'000);
  EXPECT_EQ(CheckStoredSpec(head).code(), absl::StatusCode::kDataLoss);
  head.mutable_spec()->set_repetitions(-1);
  EXPECT_EQ(CheckStoredSpec(head).code(), absl::StatusCode::kDataLoss);
  *head.mutable_spec() = MakeSpec(std::vector<std::string>(kMaxBackends + 1, "eager"), 1, 1);
  head.clear_nodes();
  EXPECT_EQ(CheckStoredSpec(head).code(), absl::StatusCode::kDataLoss) << "more than a set of backends can hold";
  head.set_state(v1::BENCHMARK_STATE_FINISHED);
  EXPECT_EQ(CheckStoredSpec(head), absl::OkStatus()) << "nothing of it is to be scheduled";
  head.set_id(0);
  EXPECT_THAT(std::string(CheckStoredSpec(head).message()), testing::HasSubstr("benchmark 0"));
}

}  // namespace
}  // namespace attnfleet::server
