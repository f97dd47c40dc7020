#include "worker/trainer_probe.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "worker/message_json.h"
#include "worker/trainer/exit_code.h"

namespace attnfleet::worker {
namespace {

constexpr size_t kMaxOutputBytes = 1 << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<TrainerProbe>> TrainerProbe::Start(EventLoop& loop, const TrainerCommand& command,
                                                                  std::chrono::milliseconds limit, Answer answer,
                                                                  std::chrono::milliseconds kill_limit) {
  std::unique_ptr<TrainerProbe> probe(new TrainerProbe(loop, limit, std::move(answer)));
  TrainerProbe* self = probe.get();
  const auto answer_with = [self](ExitState state) {
    const Answer local = std::move(self->answer_);  // it may destroy *self
    local(self->Result(state));
  };
  absl::StatusOr<std::unique_ptr<Child>> child =
      Child::Start(loop, command.argv, command.environment,
                   {.output =
                        [self](std::string_view bytes) {
                          if (self->output_.size() + bytes.size() <= kMaxOutputBytes) self->output_.append(bytes);
                        },
                    .error = [self](std::string_view bytes) { self->log_.Add(bytes); },
                    .exited =
                        [self, answer_with](ExitState state) {
                          if (!self->given_up_) answer_with(state);
                        },
                    .stuck =
                        [self, answer_with](const std::string&) {
                          self->given_up_ = true;
                          answer_with(ExitState());
                        }},
                   kill_limit);
  if (!child.ok()) return child.status();
  probe->child_ = std::move(*child);
  probe->timer_ = loop.RunAfter(limit, [self] {
    self->timed_out_ = true;
    self->child_->Kill();
  });
  return probe;
}

TrainerProbe::TrainerProbe(EventLoop& loop, std::chrono::milliseconds limit, Answer answer)
    : loop_(loop), limit_(limit), answer_(std::move(answer)) {}

TrainerProbe::~TrainerProbe() { loop_.CancelTimer(timer_); }

absl::StatusOr<v1::TrainerCapabilities> TrainerProbe::Result(ExitState state) const {
  if (timed_out_) {
    return absl::DeadlineExceededError(
        absl::StrCat("the trainer did not list its backends within ", limit_.count(), " ms"));
  }
  if (state.signal == 0 && state.status == trainer::kExitNoTorch) {
    const std::string words = log_.LastLine();
    return absl::FailedPreconditionError(absl::StripPrefix(words, "attnfleet-trainer: "));
  }
  if (state.signal != 0 || state.status != 0) return absl::InternalError(DescribeExit(state, log_));
  v1::TrainerCapabilities capabilities;
  if (!MessageFromJson(output_, capabilities) || capabilities.backends().empty()) {
    return absl::InternalError(
        absl::StrCat("the trainer's list of backends cannot be read: \"", output_.substr(0, 200), "\""));
  }
  return capabilities;
}

}  // namespace attnfleet::worker
