// The fused step's operations as the trainer calls them: on PyTorch's stream.

#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAStream.h>

#include "worker/trainer/cuda/contract.h"
#include "worker/trainer/cuda/step_launch.h"

namespace attnfleet::trainer {
namespace {

void Check(const char* error, const char* what) { TORCH_CHECK(error == nullptr, "fused step, ", what, ": ", error); }

CUstream_st* Stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

class Kernels : public StepKernels {
 public:
  void BeginPass(StepState* state) override { Check(LaunchBeginPass(state, Stream()), "begin"); }
  void BeginUpdate(StepState* state, double beta1, double beta2) override {
    Check(LaunchBeginUpdate(state, beta1, beta2, Stream()), "begin of an update");
  }
  void Norm(const StepNorm& arguments) override { Check(LaunchNorm(arguments, Stream()), "norm"); }
  void NormBackward(const StepNormBackward& arguments) override {
    Check(LaunchNormBackward(arguments, Stream()), "norm, backward");
  }
  void Gelu(const StepGelu& arguments) override { Check(LaunchGelu(arguments, Stream()), "gelu"); }
  void GeluBackward(const StepGeluBackward& arguments) override {
    Check(LaunchGeluBackward(arguments, Stream()), "gelu, backward");
  }
  void Drop(const StepDrop& arguments) override { Check(LaunchDrop(arguments, Stream()), "dropout"); }
  void ColumnSums(const StepColumnSums& arguments) override {
    Check(LaunchColumnSums(arguments, Stream()), "sums of columns");
  }
  void EmbeddingRows(const StepEmbeddingRows& arguments) override {
    Check(LaunchEmbeddingRows(arguments, Stream()), "embedding rows");
  }
  void EmbeddingSum(const StepEmbeddingSum& arguments) override {
    Check(LaunchEmbeddingSum(arguments, Stream()), "embedding");
  }
  int64_t EmbeddingScratchBytes(const StepTables& tables, int64_t tokens) override {
    int64_t bytes = 0;
    Check(EmbeddingGradientScratch(tables, tokens, &bytes), "embedding, memory");
    return bytes;
  }
  void EmbeddingGradient(const StepEmbeddingGradient& arguments) override {
    Check(LaunchEmbeddingGradient(arguments, Stream()), "embedding, backward");
  }
  void Adam(const StepAdam& arguments) override { Check(LaunchAdam(arguments, Stream()), "adam"); }
};

}  // namespace
}  // namespace attnfleet::trainer

extern "C" __attribute__((visibility("default"))) attnfleet::trainer::StepKernels* attnfleet_step_kernels() {
  return new attnfleet::trainer::Kernels();
}
