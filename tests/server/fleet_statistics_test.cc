#include "server/fleet_statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "fleet_fixture.h"

namespace attnfleet::server {
namespace {

// Every node measured every cell at `speed` times its own factor.
v1::Benchmark MakeFleet(const std::vector<double>& factors, int shapes, const std::string& device = "H100") {
  v1::Benchmark benchmark;
  *benchmark.mutable_spec() = MakeSpec({"eager", "sdpa"}, shapes, 1);
  for (size_t i = 0; i < factors.size(); ++i) {
    v1::Node& node = *benchmark.add_nodes();
    node.set_worker(absl::StrCat("w", i));
    node.set_slot("GPU-0");
    node.set_device_name(device);
  }
  for (v1::Job& job : ExpandJobs(benchmark)) *benchmark.add_jobs() = std::move(job);
  const int per_node = benchmark.jobs_size() / static_cast<int>(factors.size());
  for (v1::Job& job : *benchmark.mutable_jobs()) {
    const int cell = static_cast<int>(job.index()) % per_node;
    job.mutable_summary()->set_iterations_per_second_median((10 + cell) *
                                                            factors[job.index() / static_cast<uint32_t>(per_node)]);
    job.mutable_summary()->set_device_uuid(absl::StrCat("uuid", job.index() / static_cast<uint32_t>(per_node)));
  }
  return benchmark;
}

TEST(FleetStatistics, NamesTheSlowNodeWithItsWorkerAndGpu) {
  v1::Benchmark benchmark = MakeFleet({1.00, 1.01, 0.90, 0.99, 1.005}, 2);
  SummarizeFleet(benchmark);
  const std::vector<v1::NodeSummary> slow = SlowNodes(benchmark);
  ASSERT_EQ(slow.size(), 1u);
  EXPECT_EQ(slow[0].node().worker(), "w2");
  EXPECT_EQ(slow[0].device_uuid(), "uuid2");
  EXPECT_EQ(slow[0].cells(), 4u);
  EXPECT_NEAR(slow[0].relative_speed(), 0.9, 1e-9);
  // Median 1, deviations 0, 0.01, 0.1, 0.01, 0.005: MAD 0.01.
  EXPECT_NEAR(slow[0].robust_z_score(), -0.1 / (1.4826 * 0.01), 1e-6);
  ASSERT_EQ(benchmark.fleet().cells_size(), 4);
  EXPECT_EQ(benchmark.fleet().cells(0).nodes(), 5u);
  EXPECT_EQ(benchmark.fleet().cells(0).slowest_worker(), "w2");
  EXPECT_DOUBLE_EQ(benchmark.fleet().cells(0).iterations_per_second_max(), 10.1);
}

TEST(FleetStatistics, NodesThatAgreeToAHairAreNotSlow) {
  v1::Benchmark benchmark = MakeFleet({1, 1, 1, 1, 0.999}, 3);
  SummarizeFleet(benchmark);
  EXPECT_TRUE(SlowNodes(benchmark).empty());
}

TEST(FleetStatistics, AFastNodeAndOneBadCellAreNotSlow) {
  v1::Benchmark benchmark = MakeFleet({1, 1.01, 1.5, 0.99, 1}, 3);
  benchmark.mutable_jobs(0)->mutable_summary()->set_iterations_per_second_median(5);
  SummarizeFleet(benchmark);
  EXPECT_TRUE(SlowNodes(benchmark).empty());
}

TEST(FleetStatistics, ChanceAloneSeldomMakesASlowNode) {
  std::mt19937 random(1);
  std::normal_distribution<double> noise(1, 0.02);
  int fleets_with_slow = 0;
  constexpr int kFleets = 200;
  for (int i = 0; i < kFleets; ++i) {
    v1::Benchmark benchmark = MakeFleet(std::vector<double>(8, 1), 3);
    for (v1::Job& job : *benchmark.mutable_jobs()) {
      v1::JobSummary& summary = *job.mutable_summary();
      summary.set_iterations_per_second_median(summary.iterations_per_second_median() * noise(random));
    }
    SummarizeFleet(benchmark);
    fleets_with_slow += SlowNodes(benchmark).empty() ? 0 : 1;
  }
  EXPECT_LE(fleets_with_slow, kFleets / 50);
}

TEST(FleetStatistics, DevicesOfAnotherNameAreNotComparedAndTwoNodesCannotTell) {
  v1::Benchmark benchmark = MakeFleet({1, 1, 1, 0.5, 0.4}, 1);
  for (int node : {3, 4}) {
    benchmark.mutable_nodes(node)->set_device_name("A100");
    for (v1::Job& job : *benchmark.mutable_jobs()) {
      if (job.index() / 2 == static_cast<uint32_t>(node)) job.mutable_node()->set_device_name("A100");
    }
  }
  SummarizeFleet(benchmark);
  EXPECT_TRUE(SlowNodes(benchmark).empty());
  EXPECT_EQ(benchmark.fleet().nodes(3).cells(), 0u);
  EXPECT_EQ(benchmark.fleet().cells_size(), 4) << "their spread is told all the same";
}

TEST(FleetStatistics, NodeWhoseRunsWereAllContaminatedIsNotCompared) {
  v1::Benchmark benchmark = MakeFleet({1, 1.01, 0.99, 0.5, 0.5}, 1);
  for (v1::Job& job : *benchmark.mutable_jobs()) {
    v1::JobSummary& summary = *job.mutable_summary();
    summary.set_measured_runs(2);
    const uint32_t node = job.index() / 2;
    if (node == 3) summary.set_contaminated_runs(2);
    if (node == 4) summary.set_contaminated_runs(1);  // the other one counts
    summary.set_includes_contaminated(node == 3);
  }
  SummarizeFleet(benchmark);
  const v1::FleetSummary& fleet = benchmark.fleet();
  EXPECT_EQ(fleet.nodes(3).cells(), 0u);
  EXPECT_FALSE(fleet.nodes(3).slow());
  EXPECT_EQ(fleet.nodes(3).device_uuid(), "uuid3");
  EXPECT_TRUE(fleet.nodes(4).slow());
  EXPECT_EQ(fleet.cells(0).nodes(), 4u);
  EXPECT_EQ(fleet.cells(0).slowest_worker(), "w4");
  EXPECT_DOUBLE_EQ(fleet.cells(0).iterations_per_second_median(), 9.95);
}

TEST(FleetStatistics, NodesThatMeasuredNothingAndOtherPlacementsAreLeftOut) {
  v1::Benchmark benchmark = MakeFleet({1, 1, 1, 0}, 1);
  SummarizeFleet(benchmark);
  EXPECT_EQ(benchmark.fleet().nodes(3).cells(), 0u);
  EXPECT_FALSE(benchmark.fleet().nodes(3).slow());
  v1::Benchmark any;
  SummarizeFleet(any);
  EXPECT_FALSE(any.has_fleet());
}

}  // namespace
}  // namespace attnfleet::server
