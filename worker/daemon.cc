#include "worker/daemon.h"

#include <cstdio>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "proto/support/exit_code.h"
#include "proto/support/log.h"
#include "proto/support/metrics_endpoint.h"
#include "proto/support/state_dir.h"
#include "proto/version.h"
#include "worker/event_loop.h"
#include "worker/gpu_telemetry.h"
#include "worker/metrics.h"
#include "worker/slot_lock.h"
#include "worker/slots.h"
#include "worker/spool.h"
#include "worker/trainer_probe.h"
#include "worker/worker.h"

namespace attnfleet::worker {
namespace {

// Loading LibTorch from a cold network disk takes its time.
constexpr std::chrono::seconds kProbeLimit{60};

std::string RandomInstance() {
  std::random_device random;
  return absl::StrFormat("%08x%08x%08x%08x", random(), random(), random(), random());
}

int ExitCodeOf(const absl::Status& status) {
  if (status.ok()) return kExitOk;
  return absl::IsInvalidArgument(status) ? kExitUsage : kExitUnavailable;
}

// The steps of a start, one after the other on the loop: trainer, slots, locks, worker.
class Daemon {
 public:
  Daemon(const DaemonOptions& options, StopSignals& signals, EventLoop& loop, std::unique_ptr<Spool> spool)
      : options_(options), signals_(signals), loop_(loop), spool_(std::move(spool)) {}

  int Run() {
    const absl::StatusOr<EventLoop::Id> watch = loop_.Watch(signals_.descriptor(), [this] { TakeSignal(); });
    if (!watch.ok()) return Failed(watch.status(), kExitFailed);
    absl::StatusOr<std::unique_ptr<TrainerProbe>> probe = TrainerProbe::Start(
        loop_, MakeProbeCommand(options_.trainer), kProbeLimit,
        [this](absl::StatusOr<v1::TrainerCapabilities> answer) { TakeCapabilities(std::move(answer)); });
    if (!probe.ok()) return Failed(probe.status(), kExitFailed);
    probe_ = std::move(*probe);
    loop_.Run();
    loop_.Unwatch(*watch, signals_.descriptor());
    return exit_code_;
  }

 private:
  static int Failed(const absl::Status& status, int exit_code) {
    LogError(std::string(status.message()));
    return exit_code;
  }

  void End(int exit_code) {
    exit_code_ = exit_code;
    loop_.Quit();
  }

  void TakeSignal() {
    if (signals_.Wait(std::chrono::milliseconds(0)) == 0) return;
    if (worker_ == nullptr) {
      End(kExitOk);  // nothing has begun
    } else if (std::exchange(stopping_, true)) {
      LogWarning("second signal: killing what runs");
      End(kExitInterrupted);
    } else {
      LogInfo("stopping: finishing or handing back what runs; once more to kill it");
      worker_->Drain();
    }
  }

  void TakeCapabilities(absl::StatusOr<v1::TrainerCapabilities> answer) {
    if (absl::IsFailedPrecondition(answer.status())) return End(Failed(answer.status(), kExitUnavailable));
    if (!answer.ok()) {
      End(Failed(absl::Status(answer.status().code(), absl::StrCat("cannot use the trainer ", options_.trainer.path,
                                                                   ": ", std::string(answer.status().message()))),
                 kExitFailed));
      return;
    }
    LogInfo(absl::StrCat("LibTorch ", answer->libtorch_version(), " from ", answer->libtorch_directory()));
    const std::unique_ptr<GpuLister> lister = MakeNvmlLister();
    const SlotOptions slot_options{options_.slots, options_.cuda_visible_devices, options_.cuda_device_order,
                                   answer->cuda_module(), answer->cuda_module_error()};
    absl::StatusOr<std::vector<v1::Slot>> slots = DiscoverSlots(slot_options, *lister);
    if (!slots.ok()) return End(Failed(slots.status(), kExitUsage));
    absl::StatusOr<std::vector<FileLock>> locks =
        LockSlots(*slots, options_.lock_directory, absl::StrCat("attnfleet-worker ", options_.info.name()));
    if (!locks.ok()) return End(Failed(locks.status(), kExitUnavailable));
    locks_ = std::move(*locks);
    StartWorker(*std::move(answer), *slots);
  }

  void StartWorker(v1::TrainerCapabilities capabilities, const std::vector<v1::Slot>& slots) {
    WorkerOptions options;
    options.info = options_.info;
    options.info.set_instance(RandomInstance());
    for (const v1::Slot& slot : slots) {
      LogInfo(absl::StrCat("slot ", slot.id(), ": ", slot.device_name()));
      *options.info.add_slots() = slot;
    }
    *options.info.mutable_backends() = capabilities.backends();
    *options.info.mutable_steps() = capabilities.steps();
    options.info.set_version(kVersion);
    options.info.set_protocol(kProtocolVersion);
    options.info.set_libtorch_version(capabilities.libtorch_version());
    options.trainer = options_.trainer;
    // So that every run uses what the probe found, without looking again.
    if (options.trainer.torch.empty()) options.trainer.torch = capabilities.libtorch_directory();
    options.capabilities = std::move(capabilities);
    options.link.server = options_.server;
    options.link.tls = options_.tls;
    options.link.connect_limit = options_.connect_limit;
    options.drain_timeout = options_.drain_timeout;
    options.verbose = options_.verbose;
    if (!options_.metrics_listen.empty()) {
      if (absl::Status status = ServeFigures(slots); !status.ok()) return End(Failed(status, kExitUnavailable));
      options.metrics = metrics_;
    }
    const std::string name = options.info.name();
    worker_ = std::make_unique<Worker>(loop_, std::move(options), std::move(spool_),
                                       Worker::Callbacks{.ready =
                                                             [name] {
                                                               std::printf("ready %s\n", name.c_str());
                                                               std::fflush(stdout);
                                                             },
                                                         .ended =
                                                             [this](const absl::Status& status) {
                                                               if (!status.ok())
                                                                 LogError(std::string(status.message()));
                                                               End(ExitCodeOf(status));
                                                             }});
    worker_->Start();
  }

  absl::Status ServeFigures(const std::vector<v1::Slot>& slots) {
    metrics_ = std::make_shared<Metrics>(slots);
    telemetry_ = std::make_shared<GpuTelemetry>(slots, MakeNvmlReader());
    absl::StatusOr<std::unique_ptr<prometheus::Exposer>> exposer =
        ServeMetrics(options_.metrics_listen, {metrics_, telemetry_});
    if (!exposer.ok()) return exposer.status();
    exposer_ = *std::move(exposer);
    return absl::OkStatus();
  }

  // Constant after construction.
  const DaemonOptions& options_;
  StopSignals& signals_;
  EventLoop& loop_;

  std::unique_ptr<Spool> spool_;  // until the worker has it
  std::unique_ptr<TrainerProbe> probe_;
  std::vector<FileLock> locks_;
  std::shared_ptr<Metrics> metrics_;
  std::shared_ptr<GpuTelemetry> telemetry_;
  std::unique_ptr<prometheus::Exposer> exposer_;
  std::unique_ptr<Worker> worker_;
  bool stopping_ = false;
  int exit_code_ = kExitOk;
};

}  // namespace

int RunDaemon(const DaemonOptions& options, StopSignals& signals) {
  if (absl::Status status = PrepareStateDirectory(options.state_directory); !status.ok()) {
    LogError(std::string(status.message()));
    return kExitUnavailable;
  }
  absl::StatusOr<FileLock> lock =
      FileLock::Acquire(options.state_directory + "/lock", absl::StrCat("attnfleet-worker ", options.info.name()));
  if (!lock.ok()) {
    LogError(absl::StrCat("--state-dir: ", std::string(lock.status().message())));
    return kExitUnavailable;
  }
  absl::StatusOr<std::unique_ptr<Spool>> spool = Spool::Open(options.state_directory + "/spool");
  absl::StatusOr<std::unique_ptr<EventLoop>> loop = EventLoop::Create();
  for (const absl::Status& status : {spool.status(), loop.status()}) {
    if (status.ok()) continue;
    LogError(std::string(status.message()));
    return kExitUnavailable;
  }
  return Daemon(options, signals, **loop, *std::move(spool)).Run();
}

}  // namespace attnfleet::worker
