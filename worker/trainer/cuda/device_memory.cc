#include "worker/trainer/cuda/device_memory.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <vector>

namespace attnfleet::trainer {
namespace {

constexpr std::chrono::milliseconds kSamplePeriod{20};
constexpr int kNvmlSuccess = 0;

// nvmlProcessInfo_t of the _v3 call.
struct NvmlProcess {
  unsigned int pid;
  unsigned long long used_bytes;  // all ones: not available
  unsigned int gpu_instance;
  unsigned int compute_instance;
};

template <typename Function>
Function* Symbol(void* library, const char* name) {
  return library == nullptr ? nullptr : reinterpret_cast<Function*>(dlsym(library, name));
}

}  // namespace

Nvml::Nvml(const std::string& uuid) : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW)) {
  auto* const start = Symbol<int()>(library_, "nvmlInit_v2");
  auto* const find = Symbol<int(const char*, void**)>(library_, "nvmlDeviceGetHandleByUUID");
  if (start == nullptr || find == nullptr || start() != kNvmlSuccess || find(uuid.c_str(), &device_) != kNvmlSuccess) {
    device_ = nullptr;
  }
}

std::string Nvml::DriverVersion() const {
  auto* const version = Symbol<int(char*, unsigned int)>(library_, "nvmlSystemGetDriverVersion");
  char text[96] = "";
  if (version == nullptr || version(text, sizeof text) != kNvmlSuccess) return "";
  return text;
}

int64_t Nvml::ProcessBytes() const {
  auto* const list =
      Symbol<int(void*, unsigned int*, NvmlProcess*)>(library_, "nvmlDeviceGetComputeRunningProcesses_v3");
  if (list == nullptr || device_ == nullptr) return -1;
  std::vector<NvmlProcess> processes(64);
  unsigned int count = static_cast<unsigned int>(processes.size());
  if (list(device_, &count, processes.data()) != kNvmlSuccess) return -1;
  for (unsigned int i = 0; i < count; ++i) {
    if (processes[i].pid != static_cast<unsigned int>(getpid()) || processes[i].used_bytes == ~0ULL) continue;
    return static_cast<int64_t>(processes[i].used_bytes);
  }
  return -1;
}

DeviceMemorySampler::DeviceMemorySampler(const Nvml& nvml) : nvml_(nvml), thread_([this] { Work(); }) {}

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
  const int64_t process = nvml_.ProcessBytes();
  if (process >= 0) return process;
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
