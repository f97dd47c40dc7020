#include "worker/trainer/out_of_memory.h"

#include <gtest/gtest.h>

namespace attnfleet::trainer {
namespace {

TEST(OutOfMemory, ReadsTheCudaAllocatorsMessage) {
  const OutOfMemory figures = ParseOutOfMemory(
      "CUDA out of memory. Tried to allocate 48.00 GiB. GPU 0 has a total capacity of 79.25 GiB of which 512.50 MiB is "
      "free. Including non-PyTorch memory, this process has 31.41 GiB memory in use.");
  EXPECT_EQ(figures.requested_bytes, 48LL << 30);
  EXPECT_EQ(figures.total_bytes, (79LL << 30) + (1LL << 28));
  EXPECT_EQ(figures.free_bytes, (512LL << 20) + (1LL << 19));
  EXPECT_FALSE(figures.host_memory);
}

TEST(OutOfMemory, ReadsTheCpuAllocatorsMessage) {
  const std::string message =
      "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
      "4000000000000 bytes. Error code 12 (Cannot allocate memory)";
  EXPECT_TRUE(IsOutOfMemory(message));
  EXPECT_EQ(ParseOutOfMemory(message).requested_bytes, 4000000000000);
  EXPECT_TRUE(ParseOutOfMemory(message).host_memory);
  EXPECT_TRUE(ParseOutOfMemory(kHostMemoryUsedUp).host_memory);
}

TEST(OutOfMemory, OtherMessagesHaveNoFigures) {
  EXPECT_FALSE(IsOutOfMemory("index out of range in self"));
  const OutOfMemory figures = ParseOutOfMemory("something else; tried to allocate an elephant");
  EXPECT_EQ(figures.requested_bytes, 0);
  EXPECT_EQ(figures.free_bytes, 0);
  EXPECT_EQ(figures.total_bytes, 0);
}

}  // namespace
}  // namespace attnfleet::trainer
