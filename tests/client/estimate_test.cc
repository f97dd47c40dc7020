#include "client/estimate.h"

#include <gtest/gtest.h>

#include "sample.h"

namespace attnfleet::client {
namespace {

void End(v1::Run& run, double seconds) {
  run.set_state(v1::RUN_STATE_ENDED);
  run.set_started_unix_ms(1'000'000);
  run.set_ended_unix_ms(1'000'000 + static_cast<int64_t>(seconds * 1e3));
  run.mutable_result()->set_outcome(v1::OUTCOME_MEASURED);
}

void Start(v1::Run& run, const std::string& slot, double elapsed, double remaining) {
  run.set_state(v1::RUN_STATE_RUNNING);
  run.set_worker("w");
  run.set_slot(slot);
  run.mutable_progress()->set_elapsed_seconds(elapsed);
  run.mutable_progress()->set_remaining_seconds(remaining);
}

TEST(Estimate, NothingIsKnownAtTheStart) {
  EXPECT_FALSE(EstimateSecondsLeft(QueuedBenchmark({"eager"}, 2)).has_value());
}

TEST(Estimate, RunsOfTheSameJobTakeTheSameTime) {
  v1::Benchmark benchmark = QueuedBenchmark({"eager"}, 2);
  End(*benchmark.mutable_jobs(0)->mutable_runs(0), 4);
  End(*benchmark.mutable_jobs(1)->mutable_runs(0), 10);
  EXPECT_DOUBLE_EQ(*EstimateSecondsLeft(benchmark), 14);
}

TEST(Estimate, AnotherBackendAtTheShapeIsTheNextBestGuessThenTheWorkInIt) {
  v1::Benchmark benchmark = QueuedBenchmark({"eager", "sdpa"}, 1);
  End(*benchmark.mutable_jobs(0)->mutable_runs(0), 4);
  // sdpa 32x128: 4 s as eager; both of 64x1024: 16 times the tokens.
  EXPECT_DOUBLE_EQ(*EstimateSecondsLeft(benchmark), 4 + 2 * 64);
}

TEST(Estimate, TheTrainersOwnEstimateCountsForTheRunningRun) {
  v1::Benchmark benchmark = QueuedBenchmark({"eager"}, 2);
  End(*benchmark.mutable_jobs(0)->mutable_runs(0), 4);
  End(*benchmark.mutable_jobs(0)->mutable_runs(1), 4);
  Start(*benchmark.mutable_jobs(1)->mutable_runs(0), "0", 3, 7);
  EXPECT_DOUBLE_EQ(*EstimateSecondsLeft(benchmark), 7 + 10);
}

TEST(Estimate, ARunThatIsLaterThanExpectedCountsAsNearlyDone) {
  v1::Benchmark benchmark = QueuedBenchmark({"eager"}, 1);
  End(*benchmark.mutable_jobs(0)->mutable_runs(0), 1);
  Start(*benchmark.mutable_jobs(1)->mutable_runs(0), "0", 500, 0);
  EXPECT_DOUBLE_EQ(*EstimateSecondsLeft(benchmark), 0);
}

TEST(Estimate, SlotsAtWorkShareWhatIsLeftButNoRunIsShared) {
  v1::Benchmark benchmark = QueuedBenchmark({"eager"}, 3);
  End(*benchmark.mutable_jobs(0)->mutable_runs(0), 6);
  Start(*benchmark.mutable_jobs(0)->mutable_runs(1), "0", 1, 5);
  Start(*benchmark.mutable_jobs(0)->mutable_runs(2), "1", 1, 5);
  for (v1::Run& run : *benchmark.mutable_jobs(1)->mutable_runs()) End(run, 20);
  EXPECT_DOUBLE_EQ(*EstimateSecondsLeft(benchmark), 5);
  benchmark.mutable_jobs(0)->mutable_runs(2)->set_state(v1::RUN_STATE_ENDED);
  EXPECT_DOUBLE_EQ(*EstimateSecondsLeft(benchmark), 5);
}

TEST(Estimate, FailedRunsSayNothingAboutDurations) {
  v1::Benchmark benchmark = QueuedBenchmark({"eager"}, 2);
  End(*benchmark.mutable_jobs(0)->mutable_runs(0), 4);
  benchmark.mutable_jobs(0)->mutable_runs(0)->mutable_result()->set_outcome(v1::OUTCOME_OUT_OF_MEMORY);
  EXPECT_FALSE(EstimateSecondsLeft(benchmark).has_value());
}

}  // namespace
}  // namespace attnfleet::client
