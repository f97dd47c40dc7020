#include "worker/trainer/cuda/device_memory.h"

#include <cuda_runtime_api.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace attnfleet::trainer {
namespace {

constexpr std::chrono::milliseconds kSamplePeriod{20};

}  // namespace

DeviceMemorySampler::DeviceMemorySampler(const Nvml& nvml, std::string uuid)
    : nvml_(nvml), uuid_(std::move(uuid)), thread_([this] { Work(); }) {}

DeviceMemorySampler::~DeviceMemorySampler() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void DeviceMemorySampler::Reset() {
  const std::lock_guard lock(mutex_);
  peak_ = 0;
}

int64_t DeviceMemorySampler::Peak() {
  const int64_t sample = Sample();
  const std::lock_guard lock(mutex_);
  return peak_ = std::max(peak_, sample);
}

int64_t DeviceMemorySampler::Sample() const {
  if (const auto processes = nvml_.Processes(uuid_)) {
    for (const GpuProcess& process : *processes) {
      if (process.pid == getpid() && process.used_bytes) return *process.used_bytes;
    }
  }
  size_t free = 0;
  size_t total = 0;
  return cudaMemGetInfo(&free, &total) == cudaSuccess ? static_cast<int64_t>(total - free) : 0;
}

void DeviceMemorySampler::Work() {
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, kSamplePeriod, [this] { return stopping_; })) {
    lock.unlock();
    const int64_t sample = Sample();
    lock.lock();
    peak_ = std::max(peak_, sample);
  }
}

}  // namespace attnfleet::trainer
