// attnfleet-worker: flags, and what they mean to the daemon.

#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "proto/address.h"
#include "proto/credentials.h"
#include "proto/name.h"
#include "proto/server_list.h"
#include "proto/support/exit_code.h"
#include "proto/support/flags.h"
#include "proto/support/log.h"
#include "proto/support/metrics_endpoint.h"
#include "proto/support/process.h"
#include "proto/support/state_dir.h"
#include "proto/support/stop_signals.h"
#include "proto/version.h"
#include "worker/daemon.h"
#include "worker/slot_lock.h"
#include "worker/slots.h"

ABSL_FLAG(std::string, server, attnfleet::kDefaultAddress, "");
ABSL_FLAG(std::string, ca, "", "");
ABSL_FLAG(std::string, cert, "", "");
ABSL_FLAG(std::string, key, "", "");
ABSL_FLAG(std::string, name, "", "");
ABSL_FLAG(std::string, slots, "auto", "");
ABSL_FLAG(std::string, labels, "", "");
ABSL_FLAG(std::string, trainer, "", "");
ABSL_FLAG(std::string, torch, "", "");
ABSL_FLAG(std::string, files, "", "");
ABSL_FLAG(std::string, state_dir, "", "");
ABSL_FLAG(std::string, lock_dir, attnfleet::worker::kDefaultLockDirectory, "");
ABSL_FLAG(std::string, metrics_listen, "off", "");
ABSL_FLAG(absl::Duration, drain_timeout, absl::ZeroDuration(), "");
ABSL_FLAG(absl::Duration, connect_timeout, absl::ZeroDuration(), "");
ABSL_FLAG(int, parent_pid, 0, "");
ABSL_FLAG(std::string, log_format, "text", "");
ABSL_FLAG(bool, verbose, false, "");

namespace attnfleet::worker {
namespace {

constexpr char kHelp[] =
    R"(attnfleet-worker: offers this machine's GPUs (or its CPU) to an attnfleet-server and runs what it is given.

  attnfleet-worker                                     every GPU, or the CPU; server at 127.0.0.1:7600
  attnfleet-worker --server=coordinator:7600 --labels=rack=a3,owner=nlp
  attnfleet-worker --server=coordinator:7600 --ca=ca.pem --cert=w1.pem --key=w1.key
  attnfleet-worker --slots=0,1                         two GPUs by index (or --slots=GPU-5b2f...,MIG-8c01...)
  attnfleet-worker --slots=cpu:4                       four runs side by side on the CPU
  attnfleet-worker --torch=/opt/venv/lib/python3.12/site-packages/torch

Flags
  --server=ADDRESS,...    HOST:PORT or unix:PATH of the coordinator; of several that share a store the one that leads is
                          found; default 127.0.0.1:7600
  --ca=FILE --cert=FILE --key=FILE
                          TLS: the CA of the server's certificate, the worker's own certificate and its key (PEM);
                          default: $ATTNFLEET_CA, $ATTNFLEET_CERT, $ATTNFLEET_KEY. Read again at every connection
  --name=NAME             unique in the fleet; default: the host's name; with TLS the certificate's common name, and
                          no other is possible but one below it (NAME/a). Where one of that name is connected, this
                          one waits up to 30 s, in case that is its dead predecessor, and less if that one is heard
  --slots=WHAT            auto | cpu | cpu:N | gpu | list of GPU indexes and UUIDs; default auto. CUDA_VISIBLE_DEVICES is
                          respected, and indexes count among the visible GPUs, in nvidia-smi's order (CUDA_DEVICE_ORDER)
  --labels=K=V,...        what a benchmark can ask for with --label
  --trainer=PATH          default: attnfleet-trainer beside this program
  --torch=DIR             LibTorch for the trainer; default: the trainer looks for it (ATTNFLEET_TORCH, python3)
  --files=DIR             documents and checkpoints that a benchmark may name (--data-file, --weights-file); default none
  --state-dir=DIR         results that are not delivered yet; default $XDG_STATE_HOME/attnfleet/worker
  --lock-dir=DIR          host-wide locks of GPUs; default /tmp/attnfleet-locks; containers that share a GPU share it
  --drain-timeout=TIME    how long SIGTERM lets active runs go on (10s, 5m); default 0: they are handed back at once
  --connect-timeout=TIME  give up if no server answers at the start for so long; default 0: never
  --metrics-listen=ADDRESS  HOST:PORT of /metrics for Prometheus, for example 127.0.0.1:7602; default off, since several
                          workers may share a host
  --parent-pid=PID        stop when that process, the parent, dies
  --log-format=FORMAT     text, or json: one object a line; with a run's request id where there is one
  --verbose               log every run
  --help, --version

Prints "ready NAME" on standard output once the coordinator has accepted it; messages go to standard error.
SIGTERM or Ctrl-C: takes nothing new, finishes or hands back what runs, delivers results, ends. A second one kills.

Exit codes
  0    stopped by a signal, cleanly
  1    the trainer cannot be used (its message is shown)
  2    a flag is wrong, or the coordinator says that this worker's description is
  3    no server answers, or a worker of that name, on that state directory or on that GPU is running already, or there
       is no usable LibTorch, the state directory or that of the locks cannot be written, or the port of
       --metrics-listen is taken
  130  killed by a second signal
)";

std::string HostName() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "localhost";
  return name.data();
}

absl::StatusOr<std::string> WorkerName(const TlsFiles& tls) {
  if (std::string name = absl::GetFlag(FLAGS_name); !name.empty()) return name;
  if (tls.empty()) return HostName();
  absl::StatusOr<Certificate> certificate = ReadCertificate(tls.certificate);
  if (!certificate.ok()) return certificate.status();
  return std::move(certificate->name);
}

absl::Status ParseLabels(const std::string& text, v1::WorkerInfo& info) {
  if (text.empty()) return absl::OkStatus();
  for (const std::string& entry : std::vector<std::string>(absl::StrSplit(text, ','))) {
    const std::pair<std::string, std::string> label = absl::StrSplit(entry, absl::MaxSplits('=', 1));
    if (entry.find('=') == std::string::npos || !IsPlainName(label.first)) {
      return absl::InvalidArgumentError(absl::StrCat("--labels: \"", entry, "\" is no label; give name=value,..."));
    }
    if (!info.mutable_labels()->insert({label.first, label.second}).second) {
      return absl::InvalidArgumentError(absl::StrCat("--labels: ", label.first, " is given twice"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::chrono::milliseconds> ParseTime(const char* flag, absl::Duration time) {
  if (time >= absl::ZeroDuration() && time <= absl::Hours(24 * 365)) return absl::ToChronoMilliseconds(time);
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": ", absl::FormatDuration(time), " is out of range; 0 to a year is possible"));
}

absl::StatusOr<DaemonOptions> ReadFlags() {
  DaemonOptions options;
  options.server = absl::GetFlag(FLAGS_server);
  if (absl::Status status = ParseServerList("--server", options.server).status(); !status.ok()) return status;
  options.tls =
      TlsFilesFor(options.server, {absl::GetFlag(FLAGS_ca), absl::GetFlag(FLAGS_cert), absl::GetFlag(FLAGS_key)});
  if (absl::Status status = CheckTlsFiles(options.tls, absl::Now()); !status.ok()) return status;
  options.info.set_host(HostName());
  absl::StatusOr<std::string> name = WorkerName(options.tls);
  if (!name.ok()) return name.status();
  options.info.set_name(*std::move(name));
  if (!IsPlainName(options.info.name())) {
    return absl::InvalidArgumentError(absl::StrCat("--name: \"", options.info.name(), "\" is no name; give 1 to ",
                                                   kMaxNameLength, " characters without blanks"));
  }
  if (absl::Status status = ParseLabels(absl::GetFlag(FLAGS_labels), options.info); !status.ok()) return status;
  options.slots = absl::GetFlag(FLAGS_slots);
  if (absl::Status status = CheckSlots(options.slots); !status.ok()) return status;
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES")) options.cuda_visible_devices = visible;
  if (const char* order = std::getenv("CUDA_DEVICE_ORDER")) options.cuda_device_order = order;
  options.state_directory = absl::GetFlag(FLAGS_state_dir);
  if (options.state_directory.empty()) options.state_directory = DefaultStateDirectory() + "/worker";
  options.lock_directory = absl::GetFlag(FLAGS_lock_dir);
  options.trainer = {absl::GetFlag(FLAGS_trainer), absl::GetFlag(FLAGS_torch), getpid(), ""};
  if (options.trainer.path.empty()) {
    const absl::StatusOr<std::string> directory = ExecutableDirectory();
    if (!directory.ok()) return directory.status();
    options.trainer.path = *directory + "/attnfleet-trainer";
  }
  if (access(options.trainer.path.c_str(), X_OK) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("--trainer: there is no program ", options.trainer.path));
  }
  if (const std::string files = absl::GetFlag(FLAGS_files); !files.empty()) {
    std::error_code error;
    options.trainer.files = std::filesystem::canonical(files, error);
    if (error || !std::filesystem::is_directory(options.trainer.files, error)) {
      return absl::InvalidArgumentError(absl::StrCat("--files: there is no folder ", files));
    }
  }
  const auto connect = ParseTime("--connect-timeout", absl::GetFlag(FLAGS_connect_timeout));
  if (!connect.ok()) return connect.status();
  options.connect_limit = *connect;
  const auto drain = ParseTime("--drain-timeout", absl::GetFlag(FLAGS_drain_timeout));
  if (!drain.ok()) return drain.status();
  options.drain_timeout = *drain;
  options.metrics_listen = absl::GetFlag(FLAGS_metrics_listen);
  if (absl::Status status = ReadMetricsAddress(options.metrics_listen); !status.ok()) return status;
  options.verbose = absl::GetFlag(FLAGS_verbose);
  return options;
}

int Fail(const absl::Status& status, int exit_code) {
  LogError(std::string(status.message()));
  return exit_code;
}

int Main(int argc, char** argv) {
  // gRPC's own log lines are no help to a user; an environment variable brings them back.
  setenv("GRPC_VERBOSITY", "NONE", 0);
  StopSignals signals;
  InitLog("attnfleet-worker", Severity::kInfo);
  // Debian's Abseil looks for cycles at each lock that gRPC takes.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  const absl::StatusOr<CommandLine> line = ParseFlags(argc, argv);
  if (!line.ok()) return Fail(line.status(), kExitUsage);
  if (line->help || line->version) {
    std::fputs(line->help ? kHelp : absl::StrCat("attnfleet-worker ", kVersion, "\n").c_str(), stdout);
    return kExitOk;
  }
  if (!line->positional.empty()) {
    return Fail(absl::InvalidArgumentError(absl::StrCat("unexpected argument \"", line->positional.front(),
                                                        "\"; see attnfleet-worker --help")),
                kExitUsage);
  }
  const absl::StatusOr<LogFormat> log_format = ParseLogFormat(absl::GetFlag(FLAGS_log_format));
  if (!log_format.ok()) return Fail(log_format.status(), kExitUsage);
  InitLog("attnfleet-worker", Severity::kInfo, *log_format);
  const absl::StatusOr<DaemonOptions> options = ReadFlags();
  if (!options.ok()) return Fail(options.status(), kExitUsage);
  if (const pid_t parent = absl::GetFlag(FLAGS_parent_pid); parent != 0) {
    if (absl::Status status = DieWithParent(parent, SIGTERM); !status.ok()) return Fail(status, kExitUnavailable);
  }
  return RunDaemon(*options, signals);
}

}  // namespace
}  // namespace attnfleet::worker

int main(int argc, char** argv) { return attnfleet::worker::Main(argc, argv); }
