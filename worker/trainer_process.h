#ifndef ATTNFLEET_WORKER_TRAINER_PROCESS_H_
#define ATTNFLEET_WORKER_TRAINER_PROCESS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "attnfleet/v1/trainer.pb.h"
#include "worker/child.h"
#include "worker/event_loop.h"
#include "worker/oom_kills.h"
#include "worker/trainer_command.h"
#include "worker/trainer_output.h"

namespace attnfleet::worker {

// From SIGTERM to SIGKILL.
inline constexpr std::chrono::seconds kStopGrace{5};

// One trainer, from its start to its one result: the one that it wrote, or why there is none.
class TrainerProcess {
 public:
  struct Callbacks {
    std::function<void(const v1::TrainerProgress&)> progress;
    // It has said what it runs on. May be empty.
    std::function<void(const v1::TrainerStarted&)> started{};
    // Comes once and last, when the process is gone. Every result has an outcome; one that is not MEASURED has a
    // reason. CANCELLED means that Stop() or Kill() ended it. May destroy the TrainerProcess.
    std::function<void(v1::RunResult)> ended;
    // The process has not ended `kill_limit` after SIGKILL, as `what` says: the result is this one. `ended` comes all
    // the same, should the process end; its result counts no more. Must not destroy the TrainerProcess. May be empty.
    std::function<void(v1::RunResult, const std::string& what)> given_up{};
  };

  // `timeout_seconds` 0 = no limit; one that takes longer has failed and its failure says timed_out. A trainer that
  // somebody killed while `oom_kills` grew was killed by the kernel, for want of memory; a kill before it was last
  // heard of was that of another process. On the loop's thread.
  static absl::StatusOr<std::unique_ptr<TrainerProcess>> Start(EventLoop& loop, OomKillCounter& oom_kills,
                                                               const TrainerCommand& command, double timeout_seconds,
                                                               Callbacks callbacks,
                                                               std::chrono::milliseconds kill_limit = kKillLimit);
  ~TrainerProcess();
  TrainerProcess(const TrainerProcess&) = delete;
  TrainerProcess& operator=(const TrainerProcess&) = delete;

  // Ends it: SIGTERM, and SIGKILL to its process group after kStopGrace. The first reason counts.
  void Stop(std::string_view reason);
  // Ends it with SIGKILL at once.
  void Kill(std::string_view reason);

 private:
  TrainerProcess(EventLoop& loop, OomKillCounter& oom_kills, Callbacks callbacks);
  void TakeOutput(std::string_view bytes);
  void TakeLine(std::string_view line);
  void Fail(std::string reason);
  void TimedOut(double timeout_seconds);
  void Exited(ExitState state);
  void Stuck(const std::string& what);
  bool KilledByKernel(ExitState state) const;
  v1::RunResult MakeResult(ExitState state);

  // Constant after Start.
  EventLoop& loop_;
  OomKillCounter& counter_;
  Callbacks callbacks_;
  std::unique_ptr<Child> child_;
  EventLoop::Id timeout_ = 0;

  EventLoop::Id linger_timer_ = 0;
  LineSplitter lines_;
  LogTail log_;
  std::optional<v1::TrainerProgress> unsent_progress_;
  // When its output last came and the time before. The earlier one counts: what came last may have been read late,
  // after the kill that it led to.
  int64_t oom_kills_ = 0;
  int64_t oom_kills_before_ = 0;
  v1::Environment environment_;  // as far as the trainer has told it
  // The first of these decides the result.
  std::optional<v1::RunResult> result_;
  std::optional<std::string> failure_;      // why this worker gave it up
  bool timed_out_ = false;                  // and whether that was its time limit
  std::optional<std::string> stop_reason_;  // why others did
};

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_TRAINER_PROCESS_H_
