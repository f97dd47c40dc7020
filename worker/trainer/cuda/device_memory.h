#ifndef ATTNFLEET_WORKER_TRAINER_CUDA_DEVICE_MEMORY_H_
#define ATTNFLEET_WORKER_TRAINER_CUDA_DEVICE_MEMORY_H_

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

namespace attnfleet::trainer {

// NVML, loaded at run time: no header and no import library of it are packaged. Every figure is absent (-1, "") where
// the driver's library is missing or refuses.
class Nvml {
 public:
  explicit Nvml(const std::string& uuid);  // "GPU-..."

  std::string DriverVersion() const;
  // Bytes of GPU memory that the driver reports for this process; -1 also where it does not list it, as from inside a
  // container that has process numbers of its own.
  int64_t ProcessBytes() const;

 private:
  void* library_ = nullptr;  // never closed: the process ends first
  void* device_ = nullptr;
};

// Samples the GPU memory in use every 20 ms on a thread of its own and keeps the largest figure.
class DeviceMemorySampler {
 public:
  explicit DeviceMemorySampler(const Nvml& nvml);
  ~DeviceMemorySampler();
  DeviceMemorySampler(const DeviceMemorySampler&) = delete;
  DeviceMemorySampler& operator=(const DeviceMemorySampler&) = delete;

  void Reset();
  // Takes one more sample first.
  int64_t Peak();

 private:
  int64_t Sample() const;
  void Work();

  const Nvml& nvml_;
  std::mutex mutex_;
  std::condition_variable wake_;
  int64_t peak_ = 0;       // guarded by mutex_
  bool stopping_ = false;  // guarded by mutex_
  std::thread thread_;     // last: it uses all of the above
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_CUDA_DEVICE_MEMORY_H_
