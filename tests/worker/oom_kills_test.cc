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

}  // namespace
}  // namespace attnfleet::worker
