#include "worker/trainer/confidence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace attnfleet::trainer {
namespace {

constexpr double kMean = 0.05;
constexpr double kDeviation = 0.002;

// Step times with a correlation of `phi` between neighbours (AR(1)).
std::vector<double> Steps(std::mt19937& random, int count, double phi) {
  std::normal_distribution<double> normal;
  std::vector<double> steps;
  double state = normal(random);
  for (int i = 0; i < count; ++i) {
    steps.push_back(kMean + kDeviation * state);
    state = phi * state + std::sqrt(1 - phi * phi) * normal(random);
  }
  return steps;
}

// The part of 4,000 simulated runs whose interval holds the true speed.
double Coverage(int count, double phi) {
  std::mt19937 random(7);
  int hits = 0;
  for (int run = 0; run < 4000; ++run) {
    const std::vector<double> steps = Steps(random, count, phi);
    double sum = 0;
    for (const double seconds : steps) sum += seconds;
    const SpeedInterval interval = ConfidenceInterval(count / sum, steps);
    hits += interval.low <= 1 / kMean && 1 / kMean <= interval.high;
  }
  return hits / 4000.0;
}

TEST(Confidence, HoldsTheTrueSpeedInNineteenOfTwentyRuns) {
  for (const int count : {20, 37, 100, 300}) EXPECT_NEAR(Coverage(count, 0), 0.95, 0.012) << count;
}

TEST(Confidence, HoldsItNearlyAsOftenWhereStepsAreAlike) {
  EXPECT_GT(Coverage(300, 0.5), 0.93);
  EXPECT_GT(Coverage(300, 0.8), 0.90);
  EXPECT_GT(Coverage(100, 0.5), 0.90);
}

// The usual formula, which takes the steps for independent, would be wrong half of the time with phi = 0.8.
TEST(Confidence, GrowsWithTheLikenessOfNeighbours) {
  std::mt19937 random(3);
  double independent = 0, alike = 0;
  for (int run = 0; run < 100; ++run) {
    independent += RelativeHalfWidth(Steps(random, 300, 0));
    alike += RelativeHalfWidth(Steps(random, 300, 0.8));
  }
  EXPECT_NEAR(independent / 100, 2.2 * kDeviation / kMean / std::sqrt(300), 0.15 * kDeviation / kMean / std::sqrt(300));
  EXPECT_GT(alike, 2.3 * independent);
}

TEST(Confidence, StoppingAtAWidthKeepsMostOfTheCoverage) {
  std::mt19937 random(11);
  int hits = 0, steps_done = 0;
  for (int run = 0; run < 1000; ++run) {
    const std::vector<double> all = Steps(random, 300, 0.3);
    SpeedInterval interval;
    for (size_t count = 20; count <= all.size(); count += 5) {
      const std::vector<double> steps(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count));
      double sum = 0;
      for (const double seconds : steps) sum += seconds;
      const double speed = static_cast<double>(count) / sum;
      interval = ConfidenceInterval(speed, steps);
      steps_done += 5;
      if (interval.Within(0.015, speed)) break;
    }
    hits += interval.low <= 1 / kMean && 1 / kMean <= interval.high;
  }
  EXPECT_GT(hits, 850);
  EXPECT_LT(steps_done, 200 * 1000);  // it did stop early
}

TEST(Confidence, IsUnknownForFewSteps) {
  const SpeedInterval interval = ConfidenceInterval(20, std::vector<double>(19, 0.05));
  EXPECT_EQ(interval.low, 0);
  EXPECT_EQ(interval.high, 0);
  EXPECT_FALSE(interval.Within(0.5, 20));
}

TEST(Confidence, IsNarrowForEqualSteps) {
  const SpeedInterval interval = ConfidenceInterval(19.9, std::vector<double>(20, 0.05));
  EXPECT_NEAR(interval.low, 19.9, 1e-9);
  EXPECT_NEAR(interval.high, 19.9, 1e-9);
  EXPECT_TRUE(interval.Within(0.0001, 19.9));
}

TEST(Confidence, IsUnknownWhereNothingCanBeSaid) {
  std::vector<double> steps(20, 0.001);
  steps.back() = 100;
  EXPECT_EQ(ConfidenceInterval(1, steps).low, 0);
  steps.back() = std::nan("");
  EXPECT_EQ(ConfidenceInterval(1, steps).high, 0);
}

}  // namespace
}  // namespace attnfleet::trainer
