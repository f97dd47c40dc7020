#ifndef ATTNFLEET_WORKER_GPU_TELEMETRY_H_
#define ATTNFLEET_WORKER_GPU_TELEMETRY_H_

#include <prometheus/collectable.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "attnfleet/v1/worker.pb.h"

namespace attnfleet::worker {

// What the driver tells about one GPU now. What it does not tell is absent: 0 W and 0 C are readings.
struct GpuReading {
  std::optional<double> temperature_celsius;
  std::optional<double> power_watts;
  std::optional<double> memory_used_bytes;
  std::optional<double> memory_total_bytes;
  std::optional<double> utilization_ratio;  // 0 to 1: part of the last sample period in which a kernel ran
  std::optional<double> sm_clock_hertz;
  std::optional<double> memory_clock_hertz;
};

// Reads GPUs by UUID; the seam that tests fake. Thread-safe.
class GpuReader {
 public:
  virtual ~GpuReader() = default;
  virtual GpuReading Read(const std::string& uuid) = 0;
};

// Through libnvidia-ml.so.1, found at run time; null where there is none.
std::unique_ptr<GpuReader> MakeNvmlReader();

// The CUDA slots' GPUs, read whenever Prometheus asks.
class GpuTelemetry : public prometheus::Collectable {
 public:
  // `reader` null: there is nothing to tell.
  GpuTelemetry(std::vector<v1::Slot> slots, std::unique_ptr<GpuReader> reader);

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const std::vector<v1::Slot> slots_;
  const std::unique_ptr<GpuReader> reader_;
};

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_GPU_TELEMETRY_H_
