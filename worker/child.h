#ifndef ATTNFLEET_WORKER_CHILD_H_
#define ATTNFLEET_WORKER_CHILD_H_

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/event_loop.h"

namespace attnfleet::worker {

// From SIGKILL until a process is given up. One in a call of the kernel that no signal interrupts, as of a driver that
// hangs, lives on.
inline constexpr std::chrono::milliseconds kKillLimit{30'000};

// How a process ended.
struct ExitState {
  int status = 0;  // valid if signal is 0
  int signal = 0;
  int64_t peak_resident_bytes = 0;
};

// A program in a process group of its own, its two output streams read on the event loop. Destroying it kills the
// group and reaps the process; one that has not ended `kill_limit` after its first SIGKILL is left behind.
class Child {
 public:
  struct Callbacks {
    // Some bytes of standard output, or of standard error. They must not destroy the Child.
    std::function<void(std::string_view)> output;
    std::function<void(std::string_view)> error;
    // The process has ended, is reaped, the rest of its group killed and its output read. Comes once and last; it may
    // destroy the Child.
    std::function<void(ExitState)> exited;
    // The process has not ended `kill_limit` after SIGKILL; `what` says so. Its output is not read any more. `exited`
    // comes all the same, should it end. Comes once at most; may destroy the Child. May be empty.
    std::function<void(const std::string& what)> stuck{};
  };

  // Call it on the loop's thread, which has to live as long as the child: see DieWithParent in proto/support/process.h.
  static absl::StatusOr<std::unique_ptr<Child>> Start(EventLoop& loop, const std::vector<std::string>& argv,
                                                      const std::vector<std::string>& environment, Callbacks callbacks,
                                                      std::chrono::milliseconds kill_limit = kKillLimit);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }

  // SIGTERM now and SIGKILL to the whole group if it has not ended after `grace`. A second call changes nothing.
  void Stop(std::chrono::milliseconds grace);
  // SIGKILL to the whole group.
  void Kill();

 private:
  struct Stream {
    int descriptor = -1;
    EventLoop::Id watch = 0;
  };

  Child(EventLoop& loop, Callbacks callbacks, std::chrono::milliseconds kill_limit);
  absl::Status WatchAll();
  // Reads what is there: more than a pipe can hold, and not so much that a chatty child starves the others.
  void Read(Stream& stream, const std::function<void(std::string_view)>& consume);
  void Close(Stream& stream);
  void Exited();
  void Stuck();
  bool ReapUntil(EventLoop::Clock::time_point time);
  // "process 4711 (state D) has not ended 30 s after SIGKILL"
  std::string DescribeStuck() const;

  // Constant after Start.
  EventLoop& loop_;
  Callbacks callbacks_;
  const std::chrono::milliseconds kill_limit_;
  pid_t pid_ = -1;

  Stream output_;
  Stream error_;
  Stream process_;  // a pidfd
  EventLoop::Id kill_timer_ = 0;
  EventLoop::Id stuck_timer_ = 0;                // since the first SIGKILL
  EventLoop::Clock::time_point give_up_time_{};  // and when it ends
  bool reaped_ = false;
};

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_CHILD_H_
