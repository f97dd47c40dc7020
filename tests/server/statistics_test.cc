#include "server/statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fleet_fixture.h"
#include "server/bootstrap.h"

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
  Summarize(benchmark, false);
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

TEST(Statistics, OnlyRunsOfOneSlotArePaired) {
  v1::Benchmark benchmark = MakeBenchmark({10, 10}, {20, 30});
  benchmark.mutable_jobs(1)->mutable_runs(1)->set_slot("another");
  Summarize(benchmark, false);
  EXPECT_EQ(benchmark.jobs(1).summary().ratio_pairs(), 1u);
  EXPECT_EQ(benchmark.jobs(1).summary().ratio_to_eager(), 2);
}

TEST(Statistics, EagerIsThatOfTheSameGroupWhereverItStandsInIt) {
  v1::Benchmark benchmark = MakeBenchmark({10}, {20});
  v1::Benchmark second = MakeBenchmark({100}, {300});
  std::swap(*second.mutable_jobs(0), *second.mutable_jobs(1));  // sdpa first
  for (v1::Job& job : *second.mutable_jobs()) job.set_group(1);
  benchmark.MergeFrom(second);
  *benchmark.add_jobs() = benchmark.jobs(1);  // a shape without eager
  benchmark.mutable_jobs(4)->set_group(2);
  Summarize(benchmark, false);
  std::vector<double> ratios;
  for (const v1::Job& job : benchmark.jobs()) ratios.push_back(job.summary().ratio_to_eager());
  EXPECT_THAT(ratios, testing::ElementsAre(1, 2, 3, 1, 0));
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
  Summarize(benchmark, false);
  EXPECT_EQ(benchmark.jobs(0).summary().outcome(), v1::OUTCOME_UNSPECIFIED);
}

TEST(Statistics, IntervalOfARatioIsOverItsPairsAndNothingOfOne) {
  const v1::JobSummary two = MakeBenchmark({10, 10}, {20, 30}).jobs(1).summary();
  EXPECT_EQ(two.ratio_pairs(), 2u);
  EXPECT_EQ(two.ratio_to_eager(), 2.5);
  EXPECT_EQ(two.ratio_to_eager_low(), 2);
  EXPECT_EQ(two.ratio_to_eager_high(), 3);
  EXPECT_EQ(two.iterations_per_second_mean_low(), 20);
  EXPECT_EQ(two.iterations_per_second_mean_high(), 30);
  const v1::JobSummary one = MakeBenchmark({10}, {20}).jobs(1).summary();
  EXPECT_EQ(one.ratio_to_eager(), 2);
  EXPECT_EQ(one.ratio_to_eager_low(), 0);
  EXPECT_EQ(one.iterations_per_second_mean_high(), 0);
}

TEST(Statistics, PairedIntervalIgnoresWhatBothShare) {
  // The speeds drift by half; the ratio is always 2.
  const v1::JobSummary summary = MakeBenchmark({10, 12, 15}, {20, 24, 30}).jobs(1).summary();
  EXPECT_EQ(summary.ratio_to_eager_low(), 2);
  EXPECT_EQ(summary.ratio_to_eager_high(), 2);
  EXPECT_LT(summary.iterations_per_second_mean_low(), summary.iterations_per_second_mean_high());
}

TEST(Bootstrap, MoreValuesGiveANarrowerIntervalAlwaysTheSame) {
  std::vector<double> values;
  values.reserve(40);
  for (int i = 0; i < 40; ++i) values.push_back(i % 8);
  const Interval interval = BootstrapInterval(values, Median);
  EXPECT_GE(interval.low, 2);
  EXPECT_LE(interval.high, 5);
  EXPECT_EQ(BootstrapInterval(values, Median).low, interval.low);
  EXPECT_EQ(BootstrapInterval({3}, Median).high, 0);
}

void Contaminate(v1::Benchmark& benchmark, int job, int run) {
  benchmark.mutable_jobs(job)->mutable_runs(run)->mutable_result()->add_contamination("thermal throttling");
}

TEST(Statistics, ContaminatedRunsAreLeftOutUnlessAsked) {
  v1::Benchmark benchmark = MakeBenchmark({10, 10, 10}, {20, 22, 99});
  Contaminate(benchmark, 1, 2);
  Summarize(benchmark, false);
  const v1::JobSummary without = benchmark.jobs(1).summary();
  EXPECT_EQ(without.measured_runs(), 3u);
  EXPECT_EQ(without.contaminated_runs(), 1u);
  EXPECT_FALSE(without.includes_contaminated());
  EXPECT_EQ(without.iterations_per_second_mean(), 21);
  EXPECT_EQ(without.ratio_pairs(), 2u);
  EXPECT_EQ(without.peak_allocated_bytes(), 2200);
  EXPECT_THAT(without.contamination(), testing::ElementsAre("thermal throttling"));
  Summarize(benchmark, true);
  EXPECT_TRUE(benchmark.jobs(1).summary().includes_contaminated());
  EXPECT_EQ(benchmark.jobs(1).summary().iterations_per_second_mean(), 47);
  EXPECT_EQ(benchmark.jobs(1).summary().ratio_pairs(), 3u);
}

TEST(Statistics, ARepetitionOfContaminatedEagerGivesNoPair) {
  v1::Benchmark benchmark = MakeBenchmark({10, 5}, {20, 20});
  Contaminate(benchmark, 0, 1);
  Summarize(benchmark, false);
  EXPECT_EQ(benchmark.jobs(1).summary().ratio_to_eager(), 2);
  EXPECT_EQ(benchmark.jobs(1).summary().ratio_pairs(), 1u);
}

TEST(Statistics, NothingButContaminatedRunsIsShownWithoutARatio) {
  v1::Benchmark benchmark = MakeBenchmark({10, 10}, {20, 20});
  Contaminate(benchmark, 1, 0);
  Contaminate(benchmark, 1, 1);
  Summarize(benchmark, false);
  const v1::JobSummary& summary = benchmark.jobs(1).summary();
  EXPECT_EQ(summary.outcome(), v1::OUTCOME_MEASURED);
  EXPECT_TRUE(summary.includes_contaminated());
  EXPECT_EQ(summary.iterations_per_second_median(), 20);
  EXPECT_EQ(summary.ratio_to_eager(), 0);
}

TEST(Statistics, UtilizationIsUnknownWithoutAPeak) {
  v1::Benchmark benchmark = MakeBenchmark({10}, {20});
  v1::Measurement& sdpa = *benchmark.mutable_jobs(1)->mutable_runs(0)->mutable_result()->mutable_measurement();
  sdpa.set_model_flops_per_iteration(1e12);
  sdpa.set_peak_flops_per_second(1e14);
  Summarize(benchmark, false);
  EXPECT_EQ(benchmark.jobs(0).summary().model_flops_utilization(), 0);
  EXPECT_DOUBLE_EQ(benchmark.jobs(1).summary().model_flops_utilization(), 0.2);
}

}  // namespace
}  // namespace attnfleet::server
