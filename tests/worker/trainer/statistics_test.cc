#include "worker/trainer/statistics.h"

#include <gtest/gtest.h>

namespace attnfleet::trainer {
namespace {

TEST(Quantile, IsTheMedianAtOneHalf) {
  EXPECT_EQ(Quantile({3, 1, 2}, 0.5), 2);
  EXPECT_EQ(Quantile({4, 1, 2, 3}, 0.5), 2.5);
}

TEST(Quantile, InterpolatesAsNumPyDoes) {
  EXPECT_DOUBLE_EQ(Quantile({1, 2, 3, 4, 5}, 0.9), 4.6);
  EXPECT_DOUBLE_EQ(Quantile({1, 2, 3, 4, 5}, 0.99), 4.96);
}

TEST(Quantile, EndsAreSmallestAndLargest) {
  EXPECT_EQ(Quantile({5, 9, 7}, 0), 5);
  EXPECT_EQ(Quantile({5, 9, 7}, 1), 9);
  EXPECT_EQ(Quantile({5}, 0.9), 5);
}

}  // namespace
}  // namespace attnfleet::trainer
