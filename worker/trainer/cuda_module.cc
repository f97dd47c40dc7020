#include "worker/trainer/cuda_module.h"

#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "proto/support/process.h"

namespace attnfleet::trainer {
namespace {

absl::StatusOr<void*> Load() {
  const absl::StatusOr<std::string> directory = ExecutableDirectory();
  if (!directory.ok()) return directory.status();
  const std::string path = absl::StrCat(*directory, "/libattnfleet_cuda.so");
  // Global: libtorch_cuda's kernels have to be found by the ATen calls of this program.
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) {
    const char* const error = dlerror();
    return absl::UnavailableError(absl::StrCat("the CUDA module cannot be loaded: ", error));
  }
  auto* const contract = reinterpret_cast<CudaContractFunction*>(dlsym(library, kCudaContractSymbol));
  if (contract == nullptr || contract() != kCudaContract) {
    return absl::UnavailableError(absl::StrCat(path, " belongs to another build of the trainer"));
  }
  return library;
}

const absl::StatusOr<void*>& Library() {
  static const absl::StatusOr<void*>* const library = new absl::StatusOr<void*>(Load());
  return *library;
}

template <class Function>
Function* Symbol(const char* name) {
  TORCH_CHECK(Library().ok(), std::string(Library().status().message()));
  auto* const function = reinterpret_cast<Function*>(dlsym(*Library(), name));
  TORCH_CHECK(function != nullptr, "the CUDA module has no ", name);
  return function;
}

}  // namespace

absl::Status LoadCudaModule() { return Library().status(); }

absl::StatusOr<std::unique_ptr<CudaDevice>> OpenCudaDevice() {
  if (!Library().ok()) return Library().status();
  auto* const open = reinterpret_cast<OpenCudaFunction*>(dlsym(*Library(), kOpenCudaSymbol));
  std::string error = "the CUDA module has no attnfleet_open_cuda";
  CudaDevice* const device = open == nullptr ? nullptr : open(&error);
  if (device == nullptr) return absl::UnavailableError(error);
  return std::unique_ptr<CudaDevice>(device);
}

std::unique_ptr<FusedAttention> OpenFusedAttention(const FusedPath* path) {
  return std::unique_ptr<FusedAttention>(Symbol<FusedAttentionFunction>(kFusedAttentionSymbol)(path));
}

std::unique_ptr<StepKernels> OpenStepKernels() {
  return std::unique_ptr<StepKernels>(Symbol<StepKernelsFunction>(kStepKernelsSymbol)());
}

}  // namespace attnfleet::trainer
