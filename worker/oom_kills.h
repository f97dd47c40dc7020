#ifndef ATTNFLEET_WORKER_OOM_KILLS_H_
#define ATTNFLEET_WORKER_OOM_KILLS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>

namespace attnfleet::worker {

// How many processes of this host the kernel has killed for want of memory, in a cgroup or outside of one, by the text
// of /proc/vmstat; 0 if it does not say.
int64_t OomKills(std::string_view vmstat);

// The same, now.
int64_t OomKillsNow();

// The same for many trainers: the kernel takes longer to write /proc/vmstat than to start a small process. For one
// thread.
class OomKillCounter {
 public:
  explicit OomKillCounter(std::function<int64_t()> read = OomKillsNow,
                          std::chrono::milliseconds longest_age = std::chrono::milliseconds(100))
      : read_(std::move(read)), longest_age_(longest_age) {}

  int64_t Now();
  // What Now() gave or would have given, at most `longest_age` ago: it may miss a kill, and counts none too early.
  int64_t Lately();

 private:
  using Clock = std::chrono::steady_clock;

  const std::function<int64_t()> read_;
  const std::chrono::milliseconds longest_age_;
  int64_t count_ = 0;
  Clock::time_point fresh_until_ = Clock::time_point::min();
};

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_OOM_KILLS_H_
