#ifndef ATTNFLEET_WORKER_TRAINER_PROBE_H_
#define ATTNFLEET_WORKER_TRAINER_PROBE_H_

#include <chrono>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "attnfleet/v1/trainer.pb.h"
#include "worker/child.h"
#include "worker/event_loop.h"
#include "worker/trainer_command.h"
#include "worker/trainer_output.h"

namespace attnfleet::worker {

// Asks a trainer what it can do. Destroying it stops asking.
class TrainerProbe {
 public:
  using Answer = std::function<void(absl::StatusOr<v1::TrainerCapabilities>)>;

  // `answer` comes once, later, on the loop's thread; an error carries the trainer's own message, and is
  // FAILED_PRECONDITION where there is no usable LibTorch. It may destroy the TrainerProbe.
  static absl::StatusOr<std::unique_ptr<TrainerProbe>> Start(EventLoop& loop, const TrainerCommand& command,
                                                             std::chrono::milliseconds limit, Answer answer,
                                                             std::chrono::milliseconds kill_limit = kKillLimit);
  ~TrainerProbe();
  TrainerProbe(const TrainerProbe&) = delete;
  TrainerProbe& operator=(const TrainerProbe&) = delete;

 private:
  TrainerProbe(EventLoop& loop, std::chrono::milliseconds limit, Answer answer);
  absl::StatusOr<v1::TrainerCapabilities> Result(ExitState state) const;

  EventLoop& loop_;
  const std::chrono::milliseconds limit_;
  Answer answer_;
  std::unique_ptr<Child> child_;
  EventLoop::Id timer_ = 0;
  bool timed_out_ = false;
  bool given_up_ = false;
  std::string output_;
  LogTail log_;
};

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_TRAINER_PROBE_H_
