#ifndef ATTNFLEET_WORKER_GPU_TELEMETRY_H_
#define ATTNFLEET_WORKER_GPU_TELEMETRY_H_

#include <prometheus/collectable.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
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

// Reads GPUs by UUID; the seam that tests fake.
class GpuReader {
 public:
  virtual ~GpuReader() = default;
  virtual GpuReading Read(const std::string& uuid) = 0;
};

// Through libnvidia-ml.so.1, found at run time; null where there is none.
std::unique_ptr<GpuReader> MakeNvmlReader();

// The CUDA slots' GPUs, read whenever Prometheus asks. On a thread of its own: a driver that hangs lets no call return,
// and Prometheus's other figures, and the worker's end, are not to wait for it.
class GpuTelemetry : public prometheus::Collectable {
 public:
  // `reader` null: there is nothing to tell. `patience`: how long a reading is waited for.
  GpuTelemetry(const std::vector<v1::Slot>& slots, std::unique_ptr<GpuReader> reader,
               std::chrono::milliseconds patience = std::chrono::seconds(2));
  // Leaves a reading behind that does not end in that time.
  ~GpuTelemetry() override;
  GpuTelemetry(const GpuTelemetry&) = delete;
  GpuTelemetry& operator=(const GpuTelemetry&) = delete;

  // Nothing while the driver hangs. Thread-safe.
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  struct Shared;
  static void ReadWhenAsked(Shared& shared);

  const std::chrono::milliseconds patience_;
  const std::shared_ptr<Shared> shared_;  // with the thread, which may outlive this
  std::thread thread_;
};

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_GPU_TELEMETRY_H_
