// libattnfleet_cuda.so: loading it brings libtorch_cuda into the process, and with it every CUDA kernel of ATen.

#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <utility>

#include "worker/trainer/cuda/contract.h"
#include "worker/trainer/cuda/device_memory.h"

namespace attnfleet::trainer {
namespace {

constexpr c10::DeviceIndex kDevice = 0;

std::string FormatUuid(const cudaUUID_t& uuid) {
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    char byte[3];
    std::snprintf(byte, sizeof byte, "%02x", static_cast<unsigned char>(uuid.bytes[i]));
    text += byte;
  }
  return text;
}

class Graph : public RecordedWork {
 public:
  // `peak`: what tensors took at most meanwhile; 0 again when the recording goes.
  Graph(const std::function<void()>& queue, int64_t& peak) : peak_(peak) {
    // The recording has memory of its own: what the steps before it had goes back to the card.
    c10::cuda::device_synchronize();
    at::cuda::clearCublasWorkspaces();
    c10::cuda::CUDACachingAllocator::emptyCache();
    c10::cuda::CUDACachingAllocator::resetPeakStats(kDevice);
    // Other threads, those that make batches, may go on calling CUDA.
    graph_.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    try {
      queue();
    } catch (...) {
      try {
        graph_.capture_end();
      } catch (const c10::Error&) {
        // What went wrong first is what is told.
      }
      throw;
    }
    graph_.capture_end();
    peak_ = c10::cuda::CUDACachingAllocator::getDeviceStats(kDevice).allocated_bytes[0].peak;
  }
  ~Graph() override { peak_ = 0; }

  void Replay() override { graph_.replay(); }

 private:
  int64_t& peak_;
  at::cuda::CUDAGraph graph_;
};

class Device : public CudaDevice {
 public:
  Device() : uuid_(FormatUuid(at::cuda::getDeviceProperties(kDevice)->uuid)), sampler_(nvml_, uuid_) {}

  CudaDeviceInfo Info() override {
    const cudaDeviceProp& properties = *at::cuda::getDeviceProperties(kDevice);
    CudaDeviceInfo info;
    info.name = properties.name;
    info.uuid = uuid_;
    info.memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
    info.compute_capability = 10 * properties.major + properties.minor;
    info.driver_version = nvml_.DriverVersion();
    int version = 0;
    C10_CUDA_CHECK(cudaRuntimeGetVersion(&version));
    info.cuda_version = std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
    const long cudnn = at::detail::getCUDAHooks().versionCuDNN();
    info.cudnn_version =
        std::to_string(cudnn / 10000) + "." + std::to_string(cudnn / 100 % 100) + "." + std::to_string(cudnn % 100);
    return info;
  }

  void Synchronize() override { c10::cuda::device_synchronize(); }

  void ResetPeaks() override {
    c10::cuda::CUDACachingAllocator::resetPeakStats(kDevice);
    sampler_.Reset();
  }

  CudaMemoryPeaks Peaks() override {
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(kDevice);
    CudaMemoryPeaks peaks;
    peaks.allocated_bytes = std::max(stats.allocated_bytes[0].peak, recorded_peak_);  // 0: all pools together
    peaks.reserved_bytes = stats.reserved_bytes[0].peak;
    peaks.device_bytes = sampler_.Peak();
    return peaks;
  }

  void UseOwnStream() override { c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool()); }

  std::unique_ptr<RecordedWork> Record(const std::function<void()>& queue) override {
    return std::make_unique<Graph>(queue, recorded_peak_);
  }

  int64_t ReleaseCache() override {
    c10::cuda::CUDACachingAllocator::emptyCache();
    size_t free = 0;
    size_t total = 0;
    C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    return static_cast<int64_t>(free);
  }

  void Mark() override { marks_.emplace_back(cudaEventDefault).record(); }

  std::vector<double> TakeIntervals() override {
    if (!marks_.empty()) marks_.back().synchronize();
    CompletedIntervals();
    marks_.clear();
    return std::exchange(intervals_, {});
  }

  const std::vector<double>& CompletedIntervals() override {
    while (marks_.size() > 1 && marks_[1].query()) {
      intervals_.push_back(static_cast<double>(marks_[0].elapsed_time(marks_[1])) / 1e3);
      marks_.pop_front();
    }
    return intervals_;
  }

 private:
  const std::string uuid_;
  const Nvml nvml_;
  DeviceMemorySampler sampler_;
  int64_t recorded_peak_ = 0;
  std::deque<at::cuda::CUDAEvent> marks_;
  std::vector<double> intervals_;  // between marks that are gone
};

}  // namespace
}  // namespace attnfleet::trainer

extern "C" __attribute__((visibility("default"))) int attnfleet_cuda_contract() {
  return attnfleet::trainer::kCudaContract;
}

extern "C" __attribute__((visibility("default"))) attnfleet::trainer::CudaDevice* attnfleet_open_cuda(
    std::string* error) {
  try {
    int count = 0;
    const cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count == 0) {
      *error = std::string("no GPU is visible: ") + (status == cudaSuccess ? "none found" : cudaGetErrorString(status));
      return nullptr;
    }
    at::globalContext().lazyInitDevice(at::kCUDA);
    return new attnfleet::trainer::Device();
  } catch (const std::exception& exception) {
    *error = exception.what();
    return nullptr;
  }
}
