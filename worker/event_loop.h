#ifndef ATTNFLEET_WORKER_EVENT_LOOP_H_
#define ATTNFLEET_WORKER_EVENT_LOOP_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace attnfleet::worker {

// The one thread on which the worker lives: descriptors, timers and calls from other threads, handled one after the
// other. Everything but Post() is for that thread alone. Callbacks may add and remove watches and timers, their own
// too.
class EventLoop {
 public:
  using Clock = std::chrono::steady_clock;
  using Callback = std::function<void()>;
  using Id = uint64_t;  // of a watch or a timer; 0 = none

  static absl::StatusOr<std::unique_ptr<EventLoop>> Create();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Calls `readable` as long as `descriptor` has something to read or its other end is closed.
  absl::StatusOr<Id> Watch(int descriptor, Callback readable);
  // Call it before the descriptor is closed. Ignores 0.
  void Unwatch(Id id, int descriptor);

  Id RunAt(Clock::time_point time, Callback callback);
  Id RunAfter(std::chrono::milliseconds delay, Callback callback) {
    return RunAt(Clock::now() + delay, std::move(callback));
  }
  // Ignores 0 and timers that have run.
  void CancelTimer(Id id);

  // From any thread: runs `callback` on the loop's thread. What is posted when the loop has ended never runs.
  void Post(Callback callback);

  // Handles events until Quit().
  void Run();
  void Quit() { running_ = false; }

 private:
  EventLoop(int epoll, int wakeup);
  void RunPosted();
  void RunTimers();
  int TimeoutMilliseconds() const;  // until the next timer; -1 = none

  // Constant after construction.
  const int epoll_;
  const int wakeup_;  // an eventfd, watched as id 0

  // The loop's thread alone.
  bool running_ = false;
  Id next_id_ = 1;
  // Shared, so that a callback that removes its own watch does not destroy itself while it runs.
  std::unordered_map<Id, std::shared_ptr<Callback>> watches_;
  std::map<std::pair<Clock::time_point, Id>, Callback> timers_;
  std::unordered_map<Id, Clock::time_point> timer_times_;

  std::mutex mutex_;
  std::vector<Callback> posted_;  // guarded by mutex_
};

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_EVENT_LOOP_H_
