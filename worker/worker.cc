#include "worker/worker.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/counted.h"
#include "proto/spec.h"
#include "proto/support/log.h"

namespace attnfleet::worker {
namespace {

// Of unacknowledged reports in one hello, well below kMaxMessageBytes; the rest follows once the hello is taken.
constexpr size_t kMaxHelloReportBytes = 16 << 20;

constexpr char kStopping[] = "the worker is stopping";

bool SameAttempt(const v1::StartRun& start, const v1::RunKey& run, uint32_t attempt) {
  return Spool::KeyOf(start.run(), start.attempt()) == Spool::KeyOf(run, attempt);
}

// Of a StartRun or a RunReport.
template <typename Message>
void AddActive(const Message& message, v1::WorkerHello& hello) {
  v1::ActiveRun& active = *hello.add_active();
  *active.mutable_run() = message.run();
  active.set_attempt(message.attempt());
  active.set_slot(message.slot());
}

v1::RunResult MakeResult(v1::Outcome outcome, std::string reason) {
  v1::RunResult result;
  result.set_outcome(outcome);
  result.set_reason(std::move(reason));
  return result;
}

// "2 results and the return of 1 run are"; "" if there is nothing. A run that is handed back has no result.
std::string Undelivered(const std::map<Spool::Key, v1::RunReport>& reports) {
  const auto handed_back = std::count_if(reports.begin(), reports.end(), [](const auto& report) {
    return report.second.result().outcome() == v1::OUTCOME_CANCELLED;
  });
  const auto results = static_cast<std::ptrdiff_t>(reports.size()) - handed_back;
  std::vector<std::string> parts;
  if (results > 0) parts.push_back(Counted(static_cast<uint64_t>(results), "result"));
  if (handed_back > 0) {
    parts.push_back(absl::StrCat("the return of ", Counted(static_cast<uint64_t>(handed_back), "run")));
  }
  if (parts.empty()) return "";
  return absl::StrCat(absl::StrJoin(parts, " and "), parts.size() == 1 && results <= 1 ? " is" : " are");
}

std::string OutOfServiceReason(const std::string& slot) {
  return absl::StrCat("slot ", slot, " is out of service: its last trainer does not end");
}

void LogAboutRun(Severity severity, const v1::StartRun& start, std::string_view text) {
  const std::string key = FormatRunKey(start.run());
  Log(severity, absl::StrCat("run ", key, " ", std::string(text)),
      {{"request_id", start.request_id()},
       {"run", key},
       {"attempt", std::to_string(start.attempt())},
       {"slot", start.slot()}});
}

}  // namespace

Worker::Worker(EventLoop& loop, WorkerOptions options, std::unique_ptr<Spool> spool, Callbacks callbacks)
    : loop_(loop),
      options_(std::move(options)),
      callbacks_(std::move(callbacks)),
      spool_(std::move(spool)),
      link_(loop, options_.link,
            {.hello = [this] { return Hello(); },
             .draining = [this] { return TakesNothing(); },
             .welcomed = [this](const v1::Welcome&) { Welcomed(); },
             .disconnected = [this] { Disconnected(); },
             .command = [this](const v1::WorkerCommand& command) { Take(command); },
             .commands_taken = [this] { AdvanceEnding(); },
             .refused = [this](const absl::Status& status) { Refused(status); }}) {
  for (const v1::Slot& slot : options_.info.slots()) slots_[slot.id()].slot = slot;
  CountUndelivered();
}

Worker::~Worker() {
  loop_.CancelTimer(drain_timer_);
  // All at once, so that those that do not end are waited for together.
  for (auto& [id, state] : slots_) {
    if (state.process != nullptr) state.process->Kill(kStopping);
  }
}

v1::WorkerHello Worker::Hello() {
  v1::WorkerHello hello;
  *hello.mutable_worker() = options_.info;
  hello.set_draining(TakesNothing());
  if (OutOfService() < slots_.size()) {
    auto& slots = *hello.mutable_worker()->mutable_slots();
    slots.erase(std::remove_if(slots.begin(), slots.end(),
                               [this](const v1::Slot& slot) { return slots_.at(slot.id()).out_of_service(); }),
                slots.end());
  }
  hello.set_takes_batches(true);
  for (const auto& [id, state] : slots_) {
    if (state.active && !state.forgotten) AddActive(*state.active, hello);
    if (state.next) AddActive(*state.next, hello);
  }
  first_left_out_.reset();
  size_t bytes = 0;
  for (const auto& [key, report] : spool_->reports()) {
    bytes += report.ByteSizeLong();
    if (bytes <= kMaxHelloReportBytes) {
      *hello.add_unacknowledged() = report;
      continue;
    }
    if (!first_left_out_) first_left_out_ = key;
    // Until the coordinator has the report; what is neither active nor reported is lost to it.
    AddActive(report, hello);
  }
  return hello;
}

void Worker::Disconnected() {
  if (options_.metrics != nullptr) options_.metrics->SetConnected(false);
}

void Worker::CountUndelivered() const {
  if (options_.metrics != nullptr) options_.metrics->SetUndelivered(spool_->reports().size());
}

void Worker::CountOutOfService() const {
  if (options_.metrics != nullptr) options_.metrics->SetOutOfService(OutOfService());
}

void Worker::Welcomed() {
  if (options_.metrics != nullptr) options_.metrics->SetConnected(true);
  if (first_left_out_) {
    const auto& reports = spool_->reports();
    for (auto report = reports.lower_bound(*first_left_out_); report != reports.end(); ++report) {
      SendReport(report->second);
    }
    first_left_out_.reset();
  }
  if (!std::exchange(welcomed_, true)) callbacks_.ready();
}

void Worker::Take(const v1::WorkerCommand& command) {
  switch (command.command_case()) {
    case v1::WorkerCommand::kStart:
      Assign(command.start());
      break;
    case v1::WorkerCommand::kStop:
      Stop(command.stop());
      break;
    case v1::WorkerCommand::kAcknowledge:
      Acknowledge(command.acknowledge());
      break;
    case v1::WorkerCommand::kWelcome:
    case v1::WorkerCommand::kBatch:
    case v1::WorkerCommand::COMMAND_NOT_SET:  // a command of a newer coordinator
      break;
  }
}

void Worker::Assign(const v1::StartRun& start) {
  const auto found = slots_.find(start.slot());
  if (found == slots_.end()) {
    HandBack(start, absl::StrCat("worker ", options_.info.name(), " has no slot ", start.slot()));
    return;
  }
  SlotState& state = found->second;
  // A coordinator that restarted may say again what it has said before.
  if (state.active && !state.forgotten && SameAttempt(*state.active, start.run(), start.attempt())) return;
  if (state.next && SameAttempt(*state.next, start.run(), start.attempt())) return;
  const auto reported = spool_->reports().find(Spool::KeyOf(start.run(), start.attempt()));
  if (reported != spool_->reports().end()) {
    SendReport(reported->second);
    return;
  }
  if (draining_) {
    HandBack(start, kStopping);
  } else if (state.out_of_service()) {
    HandBack(start, OutOfServiceReason(start.slot()));
  } else if (!state.active) {
    Launch(state, start);
  } else if (state.forgotten && !state.next) {
    state.next = start;
  } else {
    HandBack(start, absl::StrCat("slot ", start.slot(), " is busy with run ", FormatRunKey(state.active->run())));
  }
}

void Worker::Launch(SlotState& state, const v1::StartRun& start) {
  const absl::StatusOr<TrainerCommand> command =
      MakeRunCommand(options_.trainer, start, state.slot, options_.capabilities);
  if (!command.ok()) {
    Report(start, MakeResult(v1::OUTCOME_FAILED, std::string(command.status().message())));
    return;
  }
  absl::StatusOr<std::unique_ptr<TrainerProcess>> process = TrainerProcess::Start(
      loop_, oom_kills_, *command, start.timeout_seconds(),
      {.progress = [this, &state](const v1::TrainerProgress& progress) { SendProgress(state, progress); },
       .started =
           [this, &state](const v1::TrainerStarted& started) {
             // The trainer's own words, not what it was told: proof that the id has come so far.
             LogRun(*state.active,
                    absl::StrCat("has begun, says its trainer", started.request_id().empty() ? "" : " of request ",
                                 started.request_id()));
           },
       .ended = [this, &state](v1::RunResult result) { Ended(state, std::move(result)); },
       .given_up = [this, &state](v1::RunResult result,
                                  const std::string& what) { GivenUp(state, std::move(result), what); }},
      options_.kill_limit);
  if (!process.ok()) {
    Report(start, MakeResult(v1::OUTCOME_FAILED, std::string(process.status().message())));
    return;
  }
  if (options_.metrics != nullptr) options_.metrics->TrainerStarted(start);
  LogRun(start, absl::StrCat("starts: ", start.backend(), " ", FormatShape(start.shape())));
  state.active = start;
  state.process = std::move(*process);
  state.forgotten = false;
}

void Worker::Stop(const v1::StopRun& stop) {
  for (auto& [id, state] : slots_) {
    if (state.next && SameAttempt(*state.next, stop.run(), stop.attempt())) state.next.reset();
    if (state.active && SameAttempt(*state.active, stop.run(), stop.attempt())) {
      state.forgotten = true;
      state.process->Stop(stop.reason());
    }
  }
}

void Worker::Acknowledge(const v1::Acknowledge& acknowledge) {
  for (const v1::ActiveRun& report : acknowledge.reports()) spool_->Remove(report.run(), report.attempt());
  CountUndelivered();
}

void Worker::Ended(SlotState& state, v1::RunResult result) {
  const bool was_out_of_service = state.out_of_service();
  state.process.reset();
  if (was_out_of_service) {
    LogInfo(absl::StrCat("slot ", state.slot.id(), " is in service again: its last trainer has ended"));
    CountOutOfService();
    if (!draining_) link_.Reconnect();
    return;
  }
  Conclude(state, std::move(result));
  if (state.next) Launch(state, *std::exchange(state.next, std::nullopt));
  AdvanceEnding();
}

void Worker::GivenUp(SlotState& state, v1::RunResult result, const std::string& what) {
  const std::string& slot = state.slot.id();
  LogAboutRun(Severity::kError, *state.active,
              absl::StrCat("is given up: the trainer's ", what, ". Slot ", slot,
                           " is out of service until it has. The kernel's log (dmesg) may tell what its driver or its "
                           "file system waits for; if that does not end, restart the host"));
  // The coordinator is to hear of the slot before, or with, what makes it give the slot to others. While draining it
  // gives nothing.
  if (!draining_) link_.Reconnect();
  Conclude(state, std::move(result));
  CountOutOfService();
  if (state.next) HandBack(*std::exchange(state.next, std::nullopt), OutOfServiceReason(slot));
  AdvanceEnding();
}

void Worker::Conclude(SlotState& state, v1::RunResult result) {
  const v1::StartRun start = std::move(*std::exchange(state.active, std::nullopt));
  if (options_.metrics != nullptr) options_.metrics->TrainerEnded(start, result.outcome());
  if (std::exchange(state.forgotten, false)) {
    LogRun(start, "is stopped");
  } else {
    Report(start, std::move(result));
  }
}

void Worker::LogRun(const v1::StartRun& start, std::string_view text) const {
  if (options_.verbose) LogAboutRun(Severity::kInfo, start, text);
}

void Worker::Report(const v1::StartRun& start, v1::RunResult result) {
  const std::string what =
      absl::StrCat("(", start.backend(), " ", FormatShape(start.shape()), ") ", OutcomeName(result.outcome()));
  if (result.outcome() == v1::OUTCOME_FAILED) {
    LogAboutRun(Severity::kWarning, start, absl::StrCat(what, ": ", result.reason()));
  } else if (result.outcome() == v1::OUTCOME_CANCELLED) {
    LogRun(start, absl::StrCat("is handed back: ", result.reason()));
  } else {
    LogRun(start, what);
  }
  v1::RunReport report;
  *report.mutable_run() = start.run();
  report.set_attempt(start.attempt());
  report.set_slot(start.slot());
  *report.mutable_result() = std::move(result);
  spool_->Add(report);
  CountUndelivered();
  SendReport(report);
}

void Worker::SendReport(const v1::RunReport& report) {
  v1::WorkerEvent event;
  *event.mutable_report() = report;
  link_.Send(std::move(event));
}

void Worker::HandBack(const v1::StartRun& start, const std::string& reason) {
  Report(start, MakeResult(v1::OUTCOME_CANCELLED, reason));
}

void Worker::SendProgress(const SlotState& state, const v1::TrainerProgress& progress) {
  if (!link_.connected() || !state.active || state.forgotten) return;
  v1::WorkerEvent event;
  v1::RunProgress& message = *event.mutable_progress();
  *message.mutable_run() = state.active->run();
  message.set_attempt(state.active->attempt());
  *message.mutable_progress() = progress;
  link_.Send(std::move(event));
}

void Worker::Drain() {
  if (draining_) return;
  draining_ = true;
  v1::WorkerEvent event;
  event.mutable_heartbeat()->set_draining(true);
  link_.Send(std::move(event));
  for (auto& [id, state] : slots_) {
    if (state.next) HandBack(*std::exchange(state.next, std::nullopt), kStopping);
  }
  if (options_.drain_timeout.count() > 0) {
    drain_timer_ = loop_.RunAfter(options_.drain_timeout, [this] { StopActive(); });
  } else {
    StopActive();
  }
  AdvanceEnding();
}

void Worker::StopActive() {
  for (auto& [id, state] : slots_) {
    if (state.active) state.process->Stop(kStopping);
  }
}

bool Worker::Idle() const {
  for (const auto& [id, state] : slots_) {
    if (state.active) return false;
  }
  return true;
}

size_t Worker::OutOfService() const {
  return static_cast<size_t>(
      std::count_if(slots_.begin(), slots_.end(), [](const auto& slot) { return slot.second.out_of_service(); }));
}

void Worker::AdvanceEnding() {
  if (ending_ == Ending::kRunning && draining_ && Idle()) {
    loop_.CancelTimer(drain_timer_);
    ending_ = Ending::kDelivering;
    // What is not acknowledged by then stays in the spool, and the next start delivers it.
    drain_timer_ = loop_.RunAfter(options_.ack_limit, [this] { End(); });
  }
  if (ending_ != Ending::kDelivering) return;
  if (!refused_.ok()) {
    End();
  } else if (spool_->reports().empty()) {
    CloseLink();
  }
}

void Worker::CloseLink() {
  ending_ = Ending::kClosing;
  link_.Close([this] { End(); });
}

void Worker::End() {
  if (std::exchange(ending_, Ending::kOver) == Ending::kOver) return;
  loop_.CancelTimer(drain_timer_);
  if (const std::string left = Undelivered(spool_->reports()); !left.empty()) {
    LogWarning(absl::StrCat(left, " not delivered yet; kept in ", spool_->folder(),
                            ", and delivered when this worker starts again"));
  }
  callbacks_.ended(refused_);
}

void Worker::Refused(const absl::Status& status) {
  refused_ = status;
  draining_ = true;
  for (auto& [id, state] : slots_) state.next.reset();
  StopActive();
  AdvanceEnding();
}

}  // namespace attnfleet::worker
