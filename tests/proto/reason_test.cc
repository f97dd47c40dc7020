#include "proto/reason.h"

#include <gtest/gtest.h>

namespace attnfleet {
namespace {

TEST(Reason, OfOutOfMemoryNamesBytesAndPhase) {
  v1::RunResult result;
  result.set_outcome(v1::OUTCOME_OUT_OF_MEMORY);
  result.set_reason("CUDA out of memory. Tried to allocate 24.00 GiB. GPU 0 has a total capacity of ...");
  result.mutable_out_of_memory()->set_requested_bytes(24LL << 30);
  result.mutable_out_of_memory()->set_free_bytes(3LL << 30);
  result.mutable_out_of_memory()->set_total_bytes(80LL << 30);
  result.mutable_out_of_memory()->set_phase("backward");
  const std::string line = "OOM: asked for 25.8 GB with 3.2 of 85.9 GB free (backward)";
  EXPECT_EQ(ReasonLine(result), line);
  EXPECT_EQ(OutcomeLine(v1::OUTCOME_OUT_OF_MEMORY, line), line) << "said once";
}

TEST(Reason, OfHostMemorySaysSoAndWhoEndedIt) {
  v1::RunResult result;
  result.set_outcome(v1::OUTCOME_OUT_OF_MEMORY);
  v1::OutOfMemory& oom = *result.mutable_out_of_memory();
  oom.set_host_memory(true);
  EXPECT_EQ(ReasonLine(result), "OOM of host memory");
  oom.set_requested_bytes(4'000'000'000);
  EXPECT_EQ(ReasonLine(result), "OOM: asked for 4.0 GB of host memory");
  oom.set_free_bytes(500'000'000);
  oom.set_total_bytes(25'000'000'000);
  EXPECT_EQ(ReasonLine(result), "OOM: asked for 4.0 GB of host memory with 0.5 of 25.0 GB free");
  oom.set_killed_at_bytes(20'100'000'000);
  EXPECT_EQ(ReasonLine(result), "OOM: the kernel killed the trainer, which held 20.1 GB of host memory");
}

TEST(Reason, IsOneLine) {
  v1::RunResult result;
  result.set_reason("a\nb");
  EXPECT_EQ(ReasonLine(result), "a b");
}

TEST(Reason, FollowsTheOutcome) {
  EXPECT_EQ(OutcomeLine(v1::OUTCOME_FAILED, "signal 11"), "failed: signal 11");
  EXPECT_EQ(OutcomeLine(v1::OUTCOME_OUT_OF_MEMORY, "no bytes told"), "out of memory: no bytes told");
  EXPECT_EQ(OutcomeLine(v1::OUTCOME_CANCELLED, ""), "cancelled");
}

}  // namespace
}  // namespace attnfleet
