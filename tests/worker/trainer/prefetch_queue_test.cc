#include "worker/trainer/prefetch_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>

namespace attnfleet::trainer {
namespace {

TEST(PrefetchQueue, HandsOutInOrderWhateverTheThreads) {
  for (const int threads : {0, 1, 2, 16}) {
    PrefetchQueue<uint64_t> queue(threads, 8, [](uint64_t number) {
      if (number % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));  // out of order
      return number;
    });
    for (uint64_t i = 0; i < 200; ++i) ASSERT_EQ(queue.Next(), i) << threads;
  }
}

TEST(PrefetchQueue, NeverMakesMoreThanItsCapacityAhead) {
  std::atomic<uint64_t> made = 0;
  PrefetchQueue<uint64_t> queue(4, 5, [&](uint64_t number) {
    ++made;
    return number;
  });
  for (uint64_t taken = 0; taken < 50; ++taken) {
    EXPECT_LE(made.load(), taken + 5);
    queue.Next();
  }
}

TEST(PrefetchQueue, EndsWhileItsThreadsWaitOrWork) {
  for (int i = 0; i < 50; ++i) {
    PrefetchQueue<uint64_t> queue(8, 4, [](uint64_t number) { return number; });
    if (i % 2 == 0) queue.Next();
  }
}

TEST(PrefetchQueue, RethrowsWhatTheMakerThrew) {
  for (const int threads : {0, 3}) {
    PrefetchQueue<int> queue(threads, 4, [](uint64_t) -> int { throw std::runtime_error("no batch"); });
    EXPECT_THROW(queue.Next(), std::runtime_error);
    EXPECT_THROW(queue.Next(), std::runtime_error);
  }
}

}  // namespace
}  // namespace attnfleet::trainer
