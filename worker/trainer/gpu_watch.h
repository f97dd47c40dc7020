#ifndef ATTNFLEET_WORKER_TRAINER_GPU_WATCH_H_
#define ATTNFLEET_WORKER_TRAINER_GPU_WATCH_H_

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "worker/trainer/nvml.h"
#include "worker/trainer/telemetry.h"

namespace attnfleet::trainer {

// Records what NVML says about a GPU while steps are timed, on a thread of its own.
class GpuWatch {
 public:
  // Notes who uses which GPU now: to be made before this process has a context on one.
  explicit GpuWatch(const Nvml& nvml, std::chrono::milliseconds period = std::chrono::milliseconds(100));
  ~GpuWatch();
  GpuWatch(const GpuWatch&) = delete;
  GpuWatch& operator=(const GpuWatch&) = delete;

  // Around the timed steps. The first sample is taken at once; a Begin() without an End() is forgotten.
  void Begin(const std::string& uuid);
  GpuRecord End();

 private:
  void Stop();
  void Work();

  const Nvml& nvml_;
  const std::chrono::milliseconds period_;
  std::map<std::string, GpuSample> before_;  // by UUID
  const bool sees_all_processes_;

  std::string uuid_;
  GpuRecord record_;
  std::chrono::steady_clock::time_point begin_;

  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;  // guarded by mutex_
  std::thread thread_;     // adds to record_.samples while it runs
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_GPU_WATCH_H_
