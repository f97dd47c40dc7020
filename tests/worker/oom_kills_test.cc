#include "worker/oom_kills.h"

#include <gtest/gtest.h>

namespace attnfleet::worker {
namespace {

TEST(OomKills, AreCountedByTheKernel) {
  EXPECT_EQ(OomKills("nr_free_pages 7\noom_kill 12\ndrop_pagecache 0\n"), 12);
  EXPECT_EQ(OomKills("nr_free_pages 7\noom_killer 3\n"), 0);
  EXPECT_EQ(OomKills(""), 0);
  EXPECT_GE(OomKillsNow(), 0);
}

TEST(OomKills, AreReadAnewWhenTheLastCountIsTooOld) {
  int64_t kills = 3;
  OomKillCounter lasting([&kills] { return kills; }, std::chrono::hours(1));
  OomKillCounter fleeting([&kills] { return kills; }, std::chrono::milliseconds(0));
  EXPECT_EQ(lasting.Lately(), 3);
  EXPECT_EQ(fleeting.Lately(), 3);
  ++kills;
  EXPECT_EQ(lasting.Lately(), 3);
  EXPECT_EQ(fleeting.Lately(), 4);
  EXPECT_EQ(lasting.Now(), 4);
  EXPECT_EQ(lasting.Lately(), 4);
}

}  // namespace
}  // namespace attnfleet::worker
