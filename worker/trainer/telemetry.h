#ifndef ATTNFLEET_WORKER_TRAINER_TELEMETRY_H_
#define ATTNFLEET_WORKER_TRAINER_TELEMETRY_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/trainer/events.h"
#include "worker/trainer/nvml.h"

namespace attnfleet::trainer {

// What was read about the GPU of one run.
struct GpuRecord {
  // Before this process had a context on the GPU, and after the timed steps.
  std::optional<std::vector<GpuProcess>> processes_before, processes_after;
  std::optional<int64_t> used_bytes_before;
  std::vector<GpuSample> samples;  // during the timed steps
  GpuCounters begin, end;          // around them
  double seconds = 0;              // between the two
  int64_t own_growth_bytes = 0;    // what this process itself allocated between the two
  int64_t own_pid = 0;
  bool sees_all_processes = false;  // else NVML may hide some, or number them differently
  std::map<int64_t, std::string> process_names;
};

// Figures and what is unknown. The process that owns the run is never among the others; where it cannot be told which
// one it is, or whether all are listed, "other processes" is unknown.
GpuTelemetry Summarise(const GpuRecord& record);

// Why the run's figures are suspect; the rules are in the README. Reasons of the clocks that belong to every run (idle,
// application clocks, a power cap under which the clock stays where it is) are none.
std::vector<std::string> Contamination(const GpuRecord& record);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_TELEMETRY_H_
