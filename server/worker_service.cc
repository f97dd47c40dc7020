#include "server/worker_service.h"

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/name.h"
#include "proto/spec.h"
#include "proto/status.h"
#include "proto/utf8.h"
#include "proto/version.h"
#include "server/access.h"
#include "server/access_control.h"

namespace attnfleet::server {
namespace {

constexpr int kMaxSlots = 256;
constexpr int kMaxLabels = 64;
constexpr int kMaxBackends = 64;
constexpr int kMaxKnownSteps = 64;
constexpr int kMaxDevices = 16;  // of a backend
constexpr size_t kMaxDescription = 1 << 10;
// Runs that a slot gave up may still be about to end.
constexpr int kMaxActive = 4 * kMaxSlots;
// Of a result; what is longer is cut. A run has at most kMaxSteps timed steps (proto/spec.h).
constexpr size_t kMaxReason = 1 << 10;
constexpr size_t kMaxLogTail = 8 << 10;
constexpr int kMaxContaminations = 32;
constexpr size_t kMaxContamination = 200;
constexpr int kMaxKernels = 64;
constexpr size_t kMaxKernel = 512;
constexpr int kMaxFacts = 32;  // in a list
constexpr size_t kMaxFact = 200;
// Commands that wait for a worker that does not read. Beyond it the stream is ended: its next hello settles all.
constexpr size_t kMaxQueuedCommands = 4096;

// One worker's stream. Keeps itself alive until gRPC is done with it; whoever else holds it may call it at any time.
class WorkerStream : public grpc::ServerBidiReactor<v1::WorkerEvent, v1::WorkerCommand>,
                     public WorkerLink,
                     public std::enable_shared_from_this<WorkerStream> {
 public:
  // `certificate`: the name in the worker's certificate; none in plain text.
  WorkerStream(Coordinator& coordinator, std::optional<std::string> certificate)
      : coordinator_(coordinator), certificate_(std::move(certificate)) {}

  void Begin() {
    const std::lock_guard<std::mutex> lock(mutex_);
    self_ = shared_from_this();
    StartRead(&event_);
  }

  // In place of Begin.
  void Refuse(const absl::Status& status) {
    const std::lock_guard<std::mutex> lock(mutex_);
    self_ = shared_from_this();
    FinishLocked(status);
  }

  void Send(v1::WorkerCommand command) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (finished_) return;
    if (commands_.size() >= kMaxQueuedCommands) {
      FinishLocked(absl::ResourceExhaustedError("the worker does not read what it is sent"));
      return;
    }
    commands_.push_back(std::move(command));
    if (commands_.size() == 1) StartWrite(&commands_.front());
  }

  void End(const absl::Status& status) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    FinishLocked(status);
  }

  void OnReadDone(bool ok) override {
    v1::WorkerEvent event;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!ok) {
        FinishLocked(absl::OkStatus());
        return;
      }
      event = std::move(event_);
      event_.Clear();
    }
    if (!Take(std::move(event))) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!finished_) StartRead(&event_);
  }

  void OnWriteDone(bool ok) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!ok) {
      FinishLocked(absl::OkStatus());
      return;
    }
    commands_.pop_front();
    if (!commands_.empty() && !finished_) StartWrite(&commands_.front());
  }

  void OnDone() override {
    std::shared_ptr<WorkerStream> self;
    std::string worker;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      self = std::move(self_);
      worker = worker_;
    }
    if (!worker.empty()) coordinator_.WorkerGone(worker, self);
  }

 private:
  // False if the stream is to read no more.
  bool Take(v1::WorkerEvent event) {
    NormalizeResults(event);
    std::string worker;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (finished_) return false;
      worker = worker_;
      if (worker.empty()) {
        const absl::Status status = CheckFirst(event);
        if (!status.ok()) {
          FinishLocked(status);
          return false;
        }
        worker_ = event.hello().worker().name();
      } else if (event.has_hello()) {
        FinishLocked(absl::InvalidArgumentError("hello: only the first message may be one"));
        return false;
      }
    }
    if (worker.empty()) {
      coordinator_.WorkerJoined(std::move(*event.mutable_hello()), shared_from_this());
    } else {
      coordinator_.WorkerSaid(worker, std::move(event), shared_from_this());
    }
    return true;
  }

  absl::Status CheckFirst(const v1::WorkerEvent& event) const {
    if (!event.has_hello()) return absl::InvalidArgumentError("the first message must be a hello");
    if (absl::Status status = ValidateHello(event.hello()); !status.ok()) return status;
    const std::string& name = event.hello().worker().name();
    if (!certificate_ || MayBeWorker(*certificate_, name)) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("hello.worker.name: the certificate is that of ", *certificate_,
                                                   ", so the worker must be --name=", *certificate_,
                                                   " or --name=", *certificate_, "/..., not ", name));
  }

  void FinishLocked(const absl::Status& status) {
    if (std::exchange(finished_, true)) return;
    Finish(ToGrpc(status));
  }

  // Constant after construction.
  Coordinator& coordinator_;
  const std::optional<std::string> certificate_;

  std::mutex mutex_;
  // Guarded by mutex_.
  v1::WorkerEvent event_;
  std::deque<v1::WorkerCommand> commands_;  // the first is being written
  std::string worker_;                      // after its hello
  bool finished_ = false;
  std::shared_ptr<WorkerStream> self_;
};

void Cut(std::string& text, size_t most) {
  if (text.size() > most) text = ToUtf8(std::string_view(text).substr(0, most));
}

template <typename Values>
void CutList(Values& values, int most) {
  if (values.size() > most) values.DeleteSubrange(most, values.size() - most);
}

template <typename Texts>
void CutTexts(Texts& texts, int most, size_t longest) {
  CutList(texts, most);
  for (std::string& text : texts) Cut(text, longest);
}

void CutEnvironment(v1::Environment& environment) {
  for (std::string* const text :
       {environment.mutable_host(), environment.mutable_device_name(), environment.mutable_device_uuid(),
        environment.mutable_driver_version(), environment.mutable_cuda_version(),
        environment.mutable_libtorch_version(), environment.mutable_cudnn_version(), environment.mutable_precision(),
        environment.mutable_attnfleet_version(), environment.mutable_build_id(), environment.mutable_step()}) {
    Cut(*text, kMaxFact);
  }
}

void CutTelemetry(v1::GpuTelemetry& telemetry) {
  CutTexts(*telemetry.mutable_throttle_reasons(), kMaxFacts, kMaxFact);
  CutTexts(*telemetry.mutable_unknown(), kMaxFacts, kMaxFact);
  CutList(*telemetry.mutable_other_processes(), kMaxFacts);
  for (v1::OtherProcess& process : *telemetry.mutable_other_processes()) {
    Cut(*process.mutable_name(), kMaxFact);
    CutTexts(*process.mutable_phases(), kMaxFacts, kMaxFact);
  }
}

void CutResult(v1::RunResult& result) {
  Cut(*result.mutable_reason(), kMaxReason);
  if (result.failure().log_tail().size() > kMaxLogTail) {  // its end says most
    std::string& log = *result.mutable_failure()->mutable_log_tail();
    log = ToUtf8(std::string_view(log).substr(log.size() - kMaxLogTail));
  }
  CutTexts(*result.mutable_contamination(), kMaxContaminations, kMaxContamination);
  if (result.has_environment()) CutEnvironment(*result.mutable_environment());
  if (result.has_telemetry()) CutTelemetry(*result.mutable_telemetry());
  if (result.has_out_of_memory()) Cut(*result.mutable_out_of_memory()->mutable_phase(), kMaxFact);
  if (!result.has_measurement()) return;
  v1::Measurement& measurement = *result.mutable_measurement();
  if (measurement.step_seconds_size() > kMaxSteps) measurement.mutable_step_seconds()->Truncate(kMaxSteps);
  CutTexts(*measurement.mutable_attention_kernels(), kMaxKernels, kMaxKernel);
  Cut(*measurement.mutable_attention_kernels_unknown(), kMaxReason);
  if (!measurement.has_numerical_check()) return;
  Cut(*measurement.mutable_numerical_check()->mutable_gradient_worst(), kMaxFact);
  Cut(*measurement.mutable_numerical_check()->mutable_skipped(), kMaxReason);
}

}  // namespace

absl::Status ValidateHello(const v1::WorkerHello& hello) {
  const v1::WorkerInfo& worker = hello.worker();
  if (worker.protocol() != kProtocolVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("hello.worker.protocol: this coordinator (", kVersion, ") speaks protocol ", kProtocolVersion,
                     ", the worker ", worker.protocol(), "; use the same version of attnfleet on both"));
  }
  if (!IsPlainName(worker.name()))
    return absl::InvalidArgumentError("hello.worker.name: 1 to 128 characters without blanks are possible");
  if (!IsPlainName(worker.instance())) {
    return absl::InvalidArgumentError("hello.worker.instance: 1 to 128 characters without blanks are possible");
  }
  if (worker.slots().empty() || worker.slots_size() > kMaxSlots) {
    return absl::InvalidArgumentError("hello.worker.slots: 1 to 256 are possible");
  }
  if (worker.host().size() > kMaxNameLength || worker.version().size() > kMaxNameLength ||
      worker.libtorch_version().size() > kMaxNameLength) {
    return absl::InvalidArgumentError("hello.worker: host and versions may have 128 characters");
  }
  if (worker.labels_size() > kMaxLabels) return absl::InvalidArgumentError("hello.worker.labels: more than 64");
  for (const auto& [name, value] : worker.labels()) {
    if (!IsPlainName(name) || value.size() > kMaxNameLength) {
      return absl::InvalidArgumentError(
          "hello.worker.labels: names of 1 to 128 characters without blanks and values of up to 128 are possible");
    }
  }
  if (worker.backends_size() > kMaxBackends) return absl::InvalidArgumentError("hello.worker.backends: more than 64");
  for (const v1::Backend& backend : worker.backends()) {
    if (!IsPlainName(backend.name())) {
      return absl::InvalidArgumentError("hello.worker.backends.name: 1 to 128 characters without blanks are possible");
    }
    if (backend.description().size() > kMaxDescription) {
      return absl::InvalidArgumentError("hello.worker.backends.description: more than 1024 bytes");
    }
    if (backend.devices_size() > kMaxDevices) {
      return absl::InvalidArgumentError("hello.worker.backends.devices: more than 16");
    }
  }
  if (worker.steps_size() > kMaxKnownSteps) return absl::InvalidArgumentError("hello.worker.steps: more than 64");
  std::set<std::string> ids;
  for (const v1::Slot& slot : worker.slots()) {
    if (!IsPlainName(slot.id()))
      return absl::InvalidArgumentError("hello.worker.slots.id: 1 to 128 characters without blanks are possible");
    if (!ids.insert(slot.id()).second) {
      return absl::InvalidArgumentError(absl::StrCat("hello.worker.slots.id: ", slot.id(), " is given twice"));
    }
    if (slot.device_name().size() > kMaxFact) {
      return absl::InvalidArgumentError("hello.worker.slots.device_name: more than 200 bytes");
    }
  }
  if (hello.active_size() > kMaxActive) return absl::InvalidArgumentError("hello.active: more than 1024");
  for (const v1::ActiveRun& active : hello.active()) {
    if (active.slot().size() > kMaxNameLength) {
      return absl::InvalidArgumentError("hello.active.slot: up to 128 characters are possible");
    }
  }
  return absl::OkStatus();
}

void NormalizeResults(v1::WorkerEvent& event) {
  const auto normalize = [](v1::RunResult& result) {
    CutResult(result);
    const int outcome = result.outcome();
    if (v1::Outcome_IsValid(outcome) && outcome != v1::OUTCOME_UNSPECIFIED) return;
    result.set_outcome(v1::OUTCOME_FAILED);
    result.set_reason(absl::StrCat("the worker reports outcome ", outcome, ", which this coordinator (", kVersion,
                                   ") does not know"));
  };
  if (event.has_report()) normalize(*event.mutable_report()->mutable_result());
  if (!event.has_hello()) return;
  for (v1::RunReport& report : *event.mutable_hello()->mutable_unacknowledged()) normalize(*report.mutable_result());
}

grpc::ServerBidiReactor<v1::WorkerEvent, v1::WorkerCommand>* WorkerService::Connect(
    grpc::CallbackServerContext* context) {
  std::optional<std::string> certificate = access_ == nullptr ? std::nullopt : PeerName(*context);
  const bool nameless = access_ != nullptr && !certificate;
  const auto stream = std::make_shared<WorkerStream>(coordinator_, std::move(certificate));
  if (nameless) {  // the guard should not have let it in
    stream->Refuse(absl::UnauthenticatedError("the peer's certificate has no name"));
  } else {
    stream->Begin();
  }
  return stream.get();
}

}  // namespace attnfleet::server
