#include "worker/trainer_process.h"

#include <algorithm>
#include <csignal>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/utf8.h"

namespace attnfleet::worker {
namespace {

// A trainer that has written its result has nothing left to do but to release its device.
constexpr std::chrono::seconds kLingerLimit{10};

constexpr double kLongestTimeoutSeconds = 1e8;

}  // namespace

absl::StatusOr<std::unique_ptr<TrainerProcess>> TrainerProcess::Start(EventLoop& loop, OomKillCounter& oom_kills,
                                                                      const TrainerCommand& command,
                                                                      double timeout_seconds, Callbacks callbacks,
                                                                      std::chrono::milliseconds kill_limit) {
  std::unique_ptr<TrainerProcess> process(new TrainerProcess(loop, oom_kills, std::move(callbacks)));
  TrainerProcess* self = process.get();
  process->oom_kills_ = process->oom_kills_before_ = oom_kills.Lately();
  absl::StatusOr<std::unique_ptr<Child>> child =
      Child::Start(loop, command.argv, command.environment,
                   {.output = [self](std::string_view bytes) { self->TakeOutput(bytes); },
                    .error = [self](std::string_view bytes) { self->log_.Add(bytes); },
                    .exited = [self](ExitState state) { self->Exited(state); },
                    .stuck = [self](const std::string& what) { self->Stuck(what); }},
                   kill_limit);
  if (!child.ok()) return child.status();
  process->child_ = std::move(*child);
  if (timeout_seconds > 0) {
    const std::chrono::duration<double> timeout(std::min(timeout_seconds, kLongestTimeoutSeconds));
    process->timeout_ = loop.RunAfter(std::chrono::ceil<std::chrono::milliseconds>(timeout),
                                      [self, timeout_seconds] { self->TimedOut(timeout_seconds); });
  }
  return process;
}

TrainerProcess::TrainerProcess(EventLoop& loop, OomKillCounter& oom_kills, Callbacks callbacks)
    : loop_(loop), counter_(oom_kills), callbacks_(std::move(callbacks)) {}

TrainerProcess::~TrainerProcess() {
  loop_.CancelTimer(timeout_);
  loop_.CancelTimer(linger_timer_);
}

void TrainerProcess::Stop(std::string_view reason) {
  if (!stop_reason_) stop_reason_ = std::string(reason);
  child_->Stop(kStopGrace);
}

void TrainerProcess::Kill(std::string_view reason) {
  if (!stop_reason_) stop_reason_ = std::string(reason);
  child_->Kill();
}

void TrainerProcess::Fail(std::string reason) {
  if (result_ || failure_ || stop_reason_) return;
  failure_ = std::move(reason);
  child_->Stop(kStopGrace);
}

void TrainerProcess::TimedOut(double timeout_seconds) {
  if (result_ || failure_ || stop_reason_) return;
  timed_out_ = true;
  Fail(absl::StrCat("stopped after its time limit of ", timeout_seconds, " s (--run-timeout)"));
}

void TrainerProcess::TakeOutput(std::string_view bytes) {
  oom_kills_before_ = std::exchange(oom_kills_, counter_.Lately());
  const absl::Status status = lines_.Add(bytes, [this](std::string_view line) { TakeLine(line); });
  if (!status.ok()) Fail(std::string(status.message()));
  // One message for all that came at once, and none if the result came with it.
  if (unsent_progress_ && !result_) callbacks_.progress(*unsent_progress_);
  unsent_progress_.reset();
}

void TrainerProcess::TakeLine(std::string_view line) {
  if (result_ || failure_) return;
  absl::StatusOr<v1::TrainerEvent> event = ParseTrainerEvent(line);
  if (!event.ok()) {
    Fail(std::string(event.status().message()));
    return;
  }
  switch (event->event_case()) {
    case v1::TrainerEvent::kStarted:
      if (callbacks_.started) callbacks_.started(event->started());
      environment_ = std::move(*event->mutable_started()->mutable_environment());
      unsent_progress_.emplace().set_phase(v1::TRAINER_PHASE_SETUP);
      break;
    case v1::TrainerEvent::kProgress:
      unsent_progress_ = std::move(*event->mutable_progress());
      break;
    case v1::TrainerEvent::kResult:
      result_ = std::move(*event->mutable_result());
      loop_.CancelTimer(timeout_);
      linger_timer_ = loop_.RunAfter(kLingerLimit, [this] { child_->Kill(); });
      break;
    case v1::TrainerEvent::EVENT_NOT_SET:  // an event of a newer trainer
      break;
  }
}

void TrainerProcess::Exited(ExitState state) {
  // A local copy: the callback may destroy this.
  const auto ended = std::move(callbacks_.ended);
  ended(MakeResult(state));
}

void TrainerProcess::Stuck(const std::string& what) {
  v1::RunResult result = MakeResult(ExitState());
  if (result.outcome() == v1::OUTCOME_FAILED) result.set_reason(absl::StrCat(result.reason(), "; its ", what));
  if (callbacks_.given_up) callbacks_.given_up(std::move(result), what);
}

bool TrainerProcess::KilledByKernel(ExitState state) const {
  const bool by_somebody = state.signal == SIGKILL && !result_ && !failure_ && !stop_reason_;
  return by_somebody && counter_.Now() > oom_kills_before_;
}

v1::RunResult TrainerProcess::MakeResult(ExitState state) {
  v1::RunResult result;
  if (KilledByKernel(state)) {
    result.set_outcome(v1::OUTCOME_OUT_OF_MEMORY);
    result.set_reason("the kernel killed the trainer: the host's memory was used up");
    result.mutable_out_of_memory()->set_host_memory(true);
    result.mutable_out_of_memory()->set_killed_at_bytes(state.peak_resident_bytes);
    *result.mutable_environment() = environment_;
    return result;
  }
  if (result_) result = std::move(*result_);
  const bool ended_itself = result.outcome() == v1::OUTCOME_CANCELLED || result.outcome() == v1::OUTCOME_UNSPECIFIED;
  if (!ended_itself && result.outcome() != v1::OUTCOME_FAILED) return result;
  if (!result.has_environment()) *result.mutable_environment() = environment_;
  if (ended_itself && stop_reason_ && !failure_) {
    result.set_outcome(v1::OUTCOME_CANCELLED);
    result.set_reason(*stop_reason_);
    return result;
  }
  if (result.outcome() != v1::OUTCOME_FAILED) {
    if (failure_) {
      result.set_reason(*failure_);
    } else if (result.outcome() == v1::OUTCOME_CANCELLED) {
      result.set_reason("the trainer was stopped by somebody else");
    } else {
      result.set_reason(absl::StrCat(DescribeExit(state, log_),
                                     state.signal == 0 && state.status == 0 ? " without a result" : "",
                                     lines_.rest().empty() ? "" : " in the middle of a line of its output"));
    }
    result.set_outcome(v1::OUTCOME_FAILED);
  }
  v1::TrainerFailure& failure = *result.mutable_failure();
  failure.set_exit_status(state.status);
  failure.set_signal(state.signal);
  failure.set_timed_out(timed_out_);
  failure.set_log_tail(ToUtf8(log_.text()));
  return result;
}

}  // namespace attnfleet::worker
