#ifndef ATTNFLEET_WORKER_TRAINER_CUDA_MODULE_H_
#define ATTNFLEET_WORKER_TRAINER_CUDA_MODULE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "worker/trainer/cuda/contract.h"

namespace attnfleet::trainer {

// Loads libattnfleet_cuda.so from this program's folder; it stays until the process ends. The error says why there is
// no CUDA here: the module is not built, a CUDA library is missing, it is of another build.
absl::Status LoadCudaModule();

// Opens the first visible GPU. Loads the module first; every ATen call can then run on CUDA.
absl::StatusOr<std::unique_ptr<CudaDevice>> OpenCudaDevice();

// The fused attention's kernels for the current device; `path` overrides which, for tests. Throws c10::Error where the
// module is not there.
std::unique_ptr<FusedAttention> OpenFusedAttention(const FusedPath* path = nullptr);

// The fused step's operations on the current device. Throws c10::Error where the module is not there.
std::unique_ptr<StepKernels> OpenStepKernels();

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_CUDA_MODULE_H_
