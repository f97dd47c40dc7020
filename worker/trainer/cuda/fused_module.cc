// The fused attention as the trainer calls it: on PyTorch's stream, with PyTorch's random numbers.

#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <c10/cuda/CUDAStream.h>

#include <mutex>

#include "worker/trainer/cuda/contract.h"

namespace attnfleet::trainer {
namespace {

constexpr uint64_t kDrawsOfOneElement = 4;  // what a call takes from the generator: each element draws once

void Check(const char* error, const char* what) {
  TORCH_CHECK(error == nullptr, "fused attention, ", what, ": ", error);
}

CUstream_st* Stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

class Kernels : public FusedAttention {
 public:
  explicit Kernels(FusedPath path) : path_(path) {}

  void Prepare(const FusedShape& shape, const FusedSource& source, const FusedStep& step) override {
    Check(FusedPrepare(shape, source, step, Stream()), "preparation");
  }
  void Forward(const FusedForwardArguments& arguments) override {
    Check(FusedForward(path_, arguments, Stream()), "forward");
  }
  void Backward(const FusedBackwardArguments& arguments) override {
    Check(FusedBackward(path_, arguments, Stream()), "backward");
  }
  void KeepMask(const FusedShape& shape, const FusedDropout& dropout, uint8_t* keep) override {
    Check(FusedKeepMask(shape, dropout, keep, Stream()), "dropout mask");
  }

  FusedDropout Draw(double p) override {
    const FusedDropout none = MakeFusedDropout(0, 0, p);
    if (none.threshold == 65536) return none;
    TORCH_CHECK(p <= kLargestFusedDropout, "fused attention: dropout of ", p, " is more than ", kLargestFusedDropout);
    auto* const generator =
        at::get_generator_or_default<at::CUDAGeneratorImpl>(std::nullopt, at::cuda::detail::getDefaultCUDAGenerator());
    const std::lock_guard lock(generator->mutex_);
    const at::PhiloxCudaState state = generator->philox_cuda_state(kDrawsOfOneElement);
    if (!state.captured_) return MakeFusedDropout(state.seed_.val, state.offset_.val, p);
    FusedDropout dropout = MakeFusedDropout(generator->current_seed(), state.offset_intragraph_, p);
    dropout.replayed = state.offset_.ptr;
    return dropout;
  }

 private:
  const FusedPath path_;
};

}  // namespace
}  // namespace attnfleet::trainer

extern "C" __attribute__((visibility("default"))) attnfleet::trainer::FusedAttention* attnfleet_fused_attention(
    const attnfleet::trainer::FusedPath* path) {
  using attnfleet::trainer::FusedPath;
  const FusedPath best = at::cuda::getCurrentDeviceProperties()->major == 9 ? FusedPath::kHopper : FusedPath::kAmpere;
  return new attnfleet::trainer::Kernels(path == nullptr ? best : *path);
}
