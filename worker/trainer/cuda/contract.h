#ifndef ATTNFLEET_WORKER_TRAINER_CUDA_CONTRACT_H_
#define ATTNFLEET_WORKER_TRAINER_CUDA_CONTRACT_H_

// What the CUDA module offers the trainer. No CUDA header here: the trainer is built without them.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "worker/trainer/cuda/fused_attention.h"
#include "worker/trainer/cuda/step_kernels.h"

namespace attnfleet::trainer {

struct CudaDeviceInfo {
  std::string name;
  std::string uuid;  // as nvidia-smi prints it: "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
  int64_t memory_bytes = 0;
  int compute_capability = 0;  // 10 * major + minor
  std::string driver_version;
  std::string cuda_version;  // of the run-time library
  std::string cudnn_version;
};

struct CudaMemoryPeaks {
  int64_t allocated_bytes = 0;  // by tensors
  int64_t reserved_bytes = 0;   // by the caching allocator
  int64_t device_bytes = 0;     // largest sample of what the driver reports for the process, else for the whole card
};

// What was queued once and can be queued again at once: a CUDA graph.
class RecordedWork {
 public:
  virtual ~RecordedWork() = default;
  virtual void Replay() = 0;
};

// The first visible GPU. Every call but the destructor throws c10::Error for an error of CUDA.
class CudaDevice {
 public:
  virtual ~CudaDevice() = default;

  virtual CudaDeviceInfo Info() = 0;
  // Waits for everything that was queued.
  virtual void Synchronize() = 0;

  // The peaks since ResetPeaks(). The driver's figure is sampled every 20 ms by a thread, and once more here.
  virtual void ResetPeaks() = 0;
  virtual CudaMemoryPeaks Peaks() = 0;

  // From here on this thread queues to a stream of its own, which can be recorded.
  virtual void UseOwnStream() = 0;
  // Records what `queue` queues, which does not run. What it allocates stays until the recording goes; Peaks() counts
  // it from here on, since replays allocate nothing.
  virtual std::unique_ptr<RecordedWork> Record(const std::function<void()>& queue) = 0;

  // Gives what the caching allocator does not use back to the driver; the bytes that are free on the card then.
  virtual int64_t ReleaseCache() = 0;

  // Puts an event into the current stream.
  virtual void Mark() = 0;
  // Seconds between neighbouring marks, in order; forgets the marks. Waits for the last one.
  virtual std::vector<double> TakeIntervals() = 0;
  // Those whose marks the device has passed, so far. Waits for nothing; valid until the next call.
  virtual const std::vector<double>& CompletedIntervals() = 0;
};

// The kernels of the backend `fused`, on the current stream and in the way that suits the GPU. Every call throws
// c10::Error for an error of CUDA.
class FusedAttention {
 public:
  virtual ~FusedAttention() = default;

  virtual void Prepare(const FusedShape& shape, const FusedSource& source, const FusedStep& step) = 0;
  virtual void Forward(const FusedForwardArguments& arguments) = 0;
  virtual void Backward(const FusedBackwardArguments& arguments) = 0;
  // keep: (B, H, S, S), for tests.
  virtual void KeepMask(const FusedShape& shape, const FusedDropout& dropout, uint8_t* keep) = 0;
  // A dropout of its own, which drops with probability p, from PyTorch's generator of the device.
  virtual FusedDropout Draw(double p) = 0;
};

// The module's symbols, of C linkage. kCudaContract grows with every change of this header or of those it includes.
inline constexpr int kCudaContract = 6;
using CudaContractFunction = int();
// Null and an error in words if there is no usable GPU.
using OpenCudaFunction = CudaDevice*(std::string* error);
// Of the current device; `path` overrides the choice of kernels, for tests.
using FusedAttentionFunction = FusedAttention*(const FusedPath* path);
// The fused step's operations on the current stream.
using StepKernelsFunction = StepKernels*();
inline constexpr char kFusedAttentionSymbol[] = "attnfleet_fused_attention";
inline constexpr char kStepKernelsSymbol[] = "attnfleet_step_kernels";
inline constexpr char kCudaContractSymbol[] = "attnfleet_cuda_contract";
inline constexpr char kOpenCudaSymbol[] = "attnfleet_open_cuda";

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_CUDA_CONTRACT_H_
