#include "worker/trainer/warmup.h"

#include <gtest/gtest.h>

#include <functional>

namespace attnfleet::trainer {
namespace {

// Runs a warm-up whose step i takes `seconds(i)`.
Warmup WarmUp(int at_least, int limit, const std::function<double(int)>& seconds) {
  Warmup warmup(at_least, limit);
  while (const int steps = warmup.NextWindow()) {
    double sum = 0;
    for (int i = 0; i < steps; ++i) sum += seconds(warmup.steps() + i);
    warmup.WindowDone(steps, sum);
  }
  return warmup;
}

TEST(Warmup, EndsOnceTwoWindowsAreEquallyFast) {
  const Warmup warmup = WarmUp(5, 100, [](int i) { return i < 7 ? 0.5 : 0.1; });
  EXPECT_TRUE(warmup.stable());
  EXPECT_EQ(warmup.steps(), 20);  // steps 10 to 14 and 15 to 19 agree
}

TEST(Warmup, DoesWhatWasAskedThoughTheSpeedIsStable) {
  const Warmup warmup = WarmUp(30, 100, [](int) { return 0.1; });
  EXPECT_TRUE(warmup.stable());
  EXPECT_EQ(warmup.steps(), 30);
}

TEST(Warmup, EndsAtTheLimitAndSaysSo) {
  const Warmup warmup = WarmUp(5, 23, [](int i) { return 1.0 / (1 + i); });
  EXPECT_FALSE(warmup.stable());
  EXPECT_EQ(warmup.steps(), 23);
}

TEST(Warmup, ToleratesLessThanOnePercent) {
  EXPECT_TRUE(WarmUp(10, 10, [](int i) { return i < 5 ? 0.1 : 0.1009; }).stable());
  EXPECT_FALSE(WarmUp(10, 10, [](int i) { return i < 5 ? 0.1 : 0.1011; }).stable());
  EXPECT_FALSE(WarmUp(10, 10, [](int i) { return i < 5 ? 0.1 : 0.0989; }).stable());
}

TEST(Warmup, TooFewStepsAreNotStable) {
  for (const int steps : {0, 1, 5, 9}) {
    const Warmup warmup = WarmUp(steps, steps, [](int) { return 0.1; });
    EXPECT_FALSE(warmup.stable()) << steps;
    EXPECT_EQ(warmup.steps(), steps);
  }
}

TEST(Warmup, WindowCutShortByTheLimitDoesNotDecide) {
  const Warmup warmup = WarmUp(12, 12, [](int i) { return i < 10 ? 0.1 : 0.2; });
  EXPECT_TRUE(warmup.stable());
  EXPECT_EQ(warmup.steps(), 12);
}

TEST(Warmup, SpeedThatChangesAgainIsNotStable) {
  EXPECT_FALSE(WarmUp(15, 15, [](int i) { return i < 10 ? 0.1 : 0.2; }).stable());
}

}  // namespace
}  // namespace attnfleet::trainer
