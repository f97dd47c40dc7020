#include "server/retention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fleet_fixture.h"
#include "server/scheduler.h"

namespace attnfleet::server {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// Benchmarks 1 to 4, of which 2 has not ended and the others ended at 1,000 times their number.
class RetentionTest : public testing::Test {
 protected:
  RetentionTest() {
    for (int64_t id = 1; id <= 4; ++id) {
      Effects effects;
      scheduler_.Submit(MakeSpec({"eager"}, 1, 10), 500, effects);
      if (id != 2) scheduler_.Cancel(static_cast<uint64_t>(id), "for the test", id * 1'000, effects);
    }
  }

  Scheduler scheduler_{1'000};
};

TEST_F(RetentionTest, WithoutALimitEverythingIsKept) {
  EXPECT_THAT(scheduler_.Expired({}, INT64_MAX, 1'000), IsEmpty());
}

TEST_F(RetentionTest, WhatEndedLongAgoGoesButNeverWhatRunsNorTheNewest) {
  EXPECT_THAT(scheduler_.Expired({.max_age_ms = 5'000}, 5'999, 1'000), IsEmpty());
  EXPECT_THAT(scheduler_.Expired({.max_age_ms = 5'000}, 6'001, 1'000), ElementsAre(1));
  EXPECT_THAT(scheduler_.Expired({.max_age_ms = 5'000}, 1'000'000, 1'000), ElementsAre(1, 3));
}

TEST_F(RetentionTest, AsManyOfTheNewestAreKept) {
  EXPECT_THAT(scheduler_.Expired({.max_benchmarks = 3}, 0, 1'000), ElementsAre(1));
  EXPECT_THAT(scheduler_.Expired({.max_benchmarks = 1}, 0, 1'000), ElementsAre(1, 3));
}

TEST_F(RetentionTest, ABatchIsBoundedByRunsButNeverEmpty) {
  EXPECT_THAT(scheduler_.Expired({.max_benchmarks = 1}, 0, 19), ElementsAre(1));
  EXPECT_THAT(scheduler_.Expired({.max_benchmarks = 1}, 0, 20), ElementsAre(1, 3));
  EXPECT_THAT(scheduler_.Expired({.max_benchmarks = 1}, 0, 1), ElementsAre(1));
  scheduler_.Forget(1);
  EXPECT_THAT(scheduler_.Expired({.max_benchmarks = 1}, 0, 1), ElementsAre(3));
  EXPECT_FALSE(scheduler_.Exists(1));
}

}  // namespace
}  // namespace attnfleet::server
