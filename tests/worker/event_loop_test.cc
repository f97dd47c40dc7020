#include "worker/event_loop.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <thread>
#include <vector>

namespace attnfleet::worker {
namespace {

using std::chrono::milliseconds;

class EventLoopTest : public testing::Test {
 protected:
  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
};

TEST_F(EventLoopTest, RunsTimersInTheOrderOfTheirTimes) {
  std::vector<int> order;
  loop_->RunAfter(milliseconds(4), [&] {
    order.push_back(2);
    loop_->Quit();
  });
  loop_->RunAfter(milliseconds(1), [&] { order.push_back(1); });
  const EventLoop::Id cancelled = loop_->RunAfter(milliseconds(2), [&] { order.push_back(3); });
  loop_->CancelTimer(cancelled);
  loop_->CancelTimer(cancelled);
  loop_->Run();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST_F(EventLoopTest, RunsWhatOtherThreadsPost) {
  int count = 0;
  std::thread poster([&] {
    for (int i = 0; i < 1000; ++i) loop_->Post([&] { ++count; });
    loop_->Post([&] { loop_->Quit(); });
  });
  loop_->Run();
  poster.join();
  EXPECT_EQ(count, 1000);
}

TEST_F(EventLoopTest, AWatchMayRemoveItself) {
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  ASSERT_EQ(write(ends[1], "xy", 2), 2);
  int calls = 0;
  EventLoop::Id watch = 0;
  watch = *loop_->Watch(ends[0], [&] {
    ++calls;
    loop_->Unwatch(watch, ends[0]);
    loop_->RunAfter(milliseconds(5), [&] { loop_->Quit(); });
  });
  loop_->Run();
  EXPECT_EQ(calls, 1) << "though a byte is left to read";
  close(ends[0]);
  close(ends[1]);
}

TEST_F(EventLoopTest, AClosedDescriptorCannotBeWatched) {
  EXPECT_FALSE(loop_->Watch(-1, [] {}).ok());
}

}  // namespace
}  // namespace attnfleet::worker
