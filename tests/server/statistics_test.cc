#include "server/statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fleet_fixture.h"

namespace attnfleet::server {
namespace {

// One group of eager and sdpa; a speed of 0 stands for a run that gave no figure.
v1::Benchmark MakeBenchmark(const std::vector<double>& eager, const std::vector<double>& sdpa) {
  v1::Benchmark benchmark;
  for (const auto& [backend, speeds] : {std::pair{"eager", eager}, std::pair{"sdpa", sdpa}}) {
    v1::Job& job = *benchmark.add_jobs();
    job.set_backend(backend);
    for (const double speed : speeds) {
      v1::Run& run = *job.add_runs();
      run.set_state(v1::RUN_STATE_ENDED);
      run.set_worker("w");
      v1::RunResult& result = *run.mutable_result();
      result.set_outcome(speed > 0 ? v1::OUTCOME_MEASURED : v1::OUTCOME_OUT_OF_MEMORY);
      result.mutable_measurement()->set_iterations_per_second(speed);
      result.mutable_measurement()->set_peak_allocated_bytes(static_cast<int64_t>(speed) * 100);
    }
  }
  Summarize(benchmark);
  return benchmark;
}

TEST(Statistics, MedianOfOddEvenAndNothing) {
  EXPECT_EQ(Median({3, 1, 2}), 2);
  EXPECT_EQ(Median({4, 1, 3, 2}), 2.5);
  EXPECT_EQ(Median({}), 0);
}

TEST(Statistics, SummaryOfMeasuredRuns) {
  const v1::Benchmark benchmark = MakeBenchmark({10, 12, 14}, {20, 24, 21});
  const v1::JobSummary& eager = benchmark.jobs(0).summary();
  EXPECT_EQ(eager.outcome(), v1::OUTCOME_MEASURED);
  EXPECT_EQ(eager.measured_runs(), 3u);
  EXPECT_EQ(eager.iterations_per_second_median(), 12);
  EXPECT_EQ(eager.iterations_per_second_min(), 10);
  EXPECT_EQ(eager.iterations_per_second_max(), 14);
  EXPECT_DOUBLE_EQ(eager.iterations_per_second_stddev(), 2);
  EXPECT_EQ(eager.ratio_to_eager(), 1);
  EXPECT_EQ(eager.peak_allocated_bytes(), 1400);
  EXPECT_EQ(eager.worker(), "w");
}

TEST(Statistics, RatiosArePairedByRepetitionNotTakenOfTheMedians) {
  // Medians: 20 / 12. Pairs: 2, 2, 1.5.
  const v1::JobSummary summary = MakeBenchmark({10, 12, 14}, {20, 24, 21}).jobs(1).summary();
  EXPECT_EQ(summary.ratio_to_eager(), 2);
  EXPECT_EQ(summary.ratio_to_eager_min(), 1.5);
  EXPECT_EQ(summary.ratio_to_eager_max(), 2);
}

TEST(Statistics, NoRatioWhereEagerHasNoFigure) {
  const v1::Benchmark benchmark = MakeBenchmark({0}, {20});
  EXPECT_EQ(benchmark.jobs(0).summary().outcome(), v1::OUTCOME_OUT_OF_MEMORY);
  EXPECT_EQ(benchmark.jobs(1).summary().ratio_to_eager(), 0);
}

TEST(Statistics, OneMeasuredRunMakesTheCellMeasured) {
  const v1::JobSummary summary = MakeBenchmark({10}, {0, 20}).jobs(1).summary();
  EXPECT_EQ(summary.outcome(), v1::OUTCOME_MEASURED);
  EXPECT_EQ(summary.measured_runs(), 1u);
  EXPECT_EQ(summary.ended_runs(), 2u);
}

TEST(Statistics, NothingEndedIsUnspecified) {
  v1::Benchmark benchmark;
  benchmark.add_jobs()->add_runs()->set_state(v1::RUN_STATE_QUEUED);
  Summarize(benchmark);
  EXPECT_EQ(benchmark.jobs(0).summary().outcome(), v1::OUTCOME_UNSPECIFIED);
}

TEST(Statistics, ReasonOfOutOfMemoryNamesBytesAndPhase) {
  v1::RunResult result;
  result.set_outcome(v1::OUTCOME_OUT_OF_MEMORY);
  result.mutable_out_of_memory()->set_requested_bytes(24LL << 30);
  result.mutable_out_of_memory()->set_free_bytes(3LL << 30);
  result.mutable_out_of_memory()->set_total_bytes(80LL << 30);
  result.mutable_out_of_memory()->set_phase("backward");
  EXPECT_EQ(ReasonLine(result), "OOM: asked for 24.0 GiB with 3.0 of 80.0 GiB free (backward)");
}

TEST(Statistics, ReasonIsOneLine) {
  v1::RunResult result;
  result.set_reason("a\nb");
  EXPECT_EQ(ReasonLine(result), "a b");
}

}  // namespace
}  // namespace attnfleet::server
