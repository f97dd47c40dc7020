#ifndef ATTNFLEET_WORKER_TRAINER_STEP_FUSED_STEP_H_
#define ATTNFLEET_WORKER_TRAINER_STEP_FUSED_STEP_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "worker/trainer/attention/contract.h"
#include "worker/trainer/config.h"
#include "worker/trainer/cuda/step_kernels.h"
#include "worker/trainer/model.h"
#include "worker/trainer/step/weights.h"

namespace attnfleet::trainer {

// Why this step cannot train in this precision, in one line, or nothing.
std::optional<std::string> RefuseStep(StepKind step, Precision precision);

// What Batch::rows is to be for a batch on the host: undefined where the batch has no padding, or an image, whose
// tokens lie behind the padding.
at::Tensor TokensThatMatter(const Batch& batch);

// The training step with its own operations between matrix products and attention: what `--step=fused` runs. It
// computes what Forward() of model.h computes; with a stream of bf16, `--step=fused-bf16-stream`, less exactly.
class FusedTrainingStep {
 public:
  // Makes the model's trained parameters views of its own memory, on their device. `low`, of the matrix products: fp32
  // or bf16; `stream`, of the residual stream: fp32, or bf16 where low is.
  FusedTrainingStep(Model& model, at::ScalarType low, at::ScalarType stream, uint64_t seed);

  // Of the model that it was made of, or of a copy that shares its tensors and differs in its dropout. In training
  // the loss's backward() leaves every parameter's gradient in its grad(), whatever was there before.
  ModelOutput Forward(const Model& model, const Backend& backend, const Batch& batch, bool training);

  const FusedWeights& weights() const { return weights_; }
  at::ScalarType low() const { return low_; }
  at::ScalarType stream() const { return stream_; }
  StepType type() const { return StepTypeOf(low_); }
  StepKernels& kernels() const { return *kernels_; }
  StepState* state() const { return reinterpret_cast<StepState*>(state_.mutable_data_ptr()); }

 private:
  const at::ScalarType low_, stream_;
  FusedWeights weights_;
  const std::unique_ptr<StepKernels> kernels_;
  at::Tensor state_;   // a StepState's bytes
  at::Tensor anchor_;  // empty; makes autograd go through the embeddings, whose parameters it does not see
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_STEP_FUSED_STEP_H_
