#ifndef ATTNFLEET_WORKER_TRAINER_EVENTS_H_
#define ATTNFLEET_WORKER_TRAINER_EVENTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "worker/trainer/model_config.h"
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
  std::string build_id;
  std::string step;  // as --step names it
};

enum class Phase { kSetup, kWarmup, kTimed };

struct Progress {
  Phase phase = Phase::kSetup;
  int steps_done = 0;
  int steps_total = 0;
  double elapsed_seconds = 0;
  double remaining_seconds = 0;
};

struct NumericalCheck {
  int samples = 0;
  double output_error = 0;
  double loss_error = 0;
  double gradient_error = 0;
  std::string gradient_worst;
  std::string skipped;
};

struct Measurement {
  int warmup_steps = 0;
  bool warmup_stable = false;
  double wall_seconds = 0;
  double data_wait_seconds = 0;
  int64_t peak_allocated_bytes = 0;
  int64_t peak_reserved_bytes = 0;
  int64_t peak_device_bytes = 0;
  int64_t peak_resident_bytes = 0;
  double first_loss = 0;
  double last_loss = 0;
  std::vector<double> step_seconds;  // the quantiles follow from it
  double iterations_per_second_low = 0;
  double iterations_per_second_high = 0;
  double energy_joules_per_iteration = 0;
  std::vector<std::string> attention_kernels;
  std::string attention_kernels_unknown;
  std::optional<NumericalCheck> numerical_check;
  int64_t model_bytes = 0;
  int64_t gradient_bytes = 0;
  int64_t optimizer_bytes = 0;
  int64_t activation_bytes = 0;
  double model_flops_per_iteration = 0;
  double peak_flops_per_second = 0;
  int64_t tokens_per_iteration = 0;
  DropoutPlacement dropout_placement = DropoutPlacement::kProbabilities;
};

struct OtherProcess {
  int64_t pid = 0;
  std::string name;
  int64_t used_bytes = 0;
  std::vector<std::string> phases;
};

struct GpuTelemetry {
  int samples = 0;
  int sm_clock_mhz_median = 0;
  int sm_clock_mhz_min = 0;
  int memory_clock_mhz_median = 0;
  int temperature_celsius_max = 0;
  double power_watts_mean = 0;
  double energy_joules = 0;
  std::vector<std::string> throttle_reasons;
  std::vector<OtherProcess> other_processes;
  int64_t ecc_uncorrected_errors = 0;
  bool ecc_enabled = false;
  std::vector<std::string> unknown;
};

enum class Outcome { kMeasured, kOutOfMemory, kUnsupported, kFailed, kCancelled };

struct RunResult {
  Outcome outcome = Outcome::kFailed;
  std::string reason;
  Measurement measurement;    // if measured
  OutOfMemory out_of_memory;  // if out of memory
  std::string memory_phase;
  std::vector<std::string> contamination;
  std::optional<GpuTelemetry> telemetry;
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
std::string StartedLine(const Environment& environment, int64_t parameter_count, const std::string& request_id);
std::string ProgressLine(const Progress& progress);
std::string ResultLine(const RunResult& result);
std::string CapabilitiesLine(const Capabilities& capabilities);

// Writes a line and its line feed to the file descriptor. An error (full disk, closed pipe) is to end the trainer.
absl::Status WriteLine(int descriptor, const std::string& line);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_EVENTS_H_
