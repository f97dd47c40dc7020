#ifndef ATTNFLEET_WORKER_DAEMON_H_
#define ATTNFLEET_WORKER_DAEMON_H_

#include <chrono>
#include <optional>
#include <string>

#include "attnfleet/v1/worker.pb.h"
#include "proto/credentials.h"
#include "proto/support/stop_signals.h"
#include "worker/trainer_command.h"

namespace attnfleet::worker {

// Flags and environment, checked.
struct DaemonOptions {
  v1::WorkerInfo info;  // name, host, labels; the rest is found out
  std::string server;
  TlsFiles tls;  // none: plain text
  std::string state_directory;
  std::string slots;
  std::optional<std::string> cuda_visible_devices;
  std::string cuda_device_order;
  std::string lock_directory;
  TrainerProgram trainer;
  std::chrono::milliseconds connect_limit{0};
  std::chrono::milliseconds drain_timeout{0};
  std::string metrics_listen;  // HOST:PORT of /metrics; empty: none
  bool verbose = false;
};

// Runs the worker until it is drained, refused or killed, and returns the program's exit code. The first signal drains,
// the second kills. Everything happens on this thread, which spawns the trainers and so has to be the main one.
int RunDaemon(const DaemonOptions& options, StopSignals& signals);

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_DAEMON_H_
