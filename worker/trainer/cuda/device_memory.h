#ifndef ATTNFLEET_WORKER_TRAINER_CUDA_DEVICE_MEMORY_H_
#define ATTNFLEET_WORKER_TRAINER_CUDA_DEVICE_MEMORY_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

#include "worker/trainer/nvml.h"

namespace attnfleet::trainer {

// Samples the GPU memory in use every 20 ms on a thread of its own and keeps the largest figure.
class DeviceMemorySampler {
 public:
  DeviceMemorySampler(const Nvml& nvml, std::string uuid);
  ~DeviceMemorySampler();
  DeviceMemorySampler(const DeviceMemorySampler&) = delete;
  DeviceMemorySampler& operator=(const DeviceMemorySampler&) = delete;

  void Reset();
  // Takes one more sample first.
  int64_t Peak();

 private:
  // What the driver reports for this process; for the whole card where it does not list it, as from inside a container
  // that has process numbers of its own.
  int64_t Sample() const;
  void Work();

  const Nvml& nvml_;
  const std::string uuid_;
  std::mutex mutex_;
  std::condition_variable wake_;
  int64_t peak_ = 0;       // guarded by mutex_
  bool stopping_ = false;  // guarded by mutex_
  std::thread thread_;     // last: it uses all of the above
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_CUDA_DEVICE_MEMORY_H_
