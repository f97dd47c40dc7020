#ifndef ATTNFLEET_WORKER_TRAINER_EVENTS_H_
#define ATTNFLEET_WORKER_TRAINER_EVENTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "worker/trainer/out_of_memory.h"

namespace attnfleet::trainer {

// The messages of proto/attnfleet/v1/trainer.proto, field by field as they are described there. No protobuf here: see
// the README. The worker's parser checks every line that it gets, and tests/e2e run the two together.

struct Environment {
  std::string host;
  bool cuda = false;
  std::string device_name;
  std::string device_uuid;
  int64_t device_memory_bytes = 0;
  std::string driver_version;
  std::string cuda_version;
  std::string libtorch_version;
  std::string cudnn_version;
  int cpu_threads = 0;
  std::string precision;
  uint64_t seed = 0;
};

enum class Phase { kSetup, kWarmup, kTimed };

struct Progress {
  Phase phase = Phase::kSetup;
  int steps_done = 0;
  int steps_total = 0;
  double elapsed_seconds = 0;
  double remaining_seconds = 0;
};

struct Measurement {
  int warmup_steps = 0;
  double wall_seconds = 0;
  double data_wait_seconds = 0;
  int64_t peak_allocated_bytes = 0;
  int64_t peak_reserved_bytes = 0;
  int64_t peak_device_bytes = 0;
  int64_t peak_resident_bytes = 0;
  double first_loss = 0;
  double last_loss = 0;
  std::vector<double> step_seconds;  // the quantiles follow from it
};

enum class Outcome { kMeasured, kOutOfMemory, kUnsupported, kFailed, kCancelled };

struct RunResult {
  Outcome outcome = Outcome::kFailed;
  std::string reason;
  Measurement measurement;    // if measured
  OutOfMemory out_of_memory;  // if out of memory
  std::string memory_phase;
  Environment environment;
};

struct BackendInfo {
  std::string name;
  std::string description;
  bool cpu = false;
  bool cuda = false;
};

struct Capabilities {
  std::vector<BackendInfo> backends;
  std::string libtorch_version;
  std::string libtorch_directory;
  bool cuda_module = false;
  std::string cuda_module_error;
};

// One document each, protobuf JSON with the field names of the .proto, without a line feed.
std::string StartedLine(const Environment& environment, int64_t parameter_count);
std::string ProgressLine(const Progress& progress);
std::string ResultLine(const RunResult& result);
std::string CapabilitiesLine(const Capabilities& capabilities);

// Writes a line and its line feed to the file descriptor. An error (full disk, closed pipe) is to end the trainer.
absl::Status WriteLine(int descriptor, const std::string& line);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_EVENTS_H_
