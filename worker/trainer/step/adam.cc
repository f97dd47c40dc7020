#include "worker/trainer/step/adam.h"

#include <ATen/ops/zeros_like.h>

namespace attnfleet::trainer {
namespace {

constexpr double kBeta1 = 0.9, kBeta2 = 0.999;  // PyTorch's defaults, as its epsilon and weight decay are

}  // namespace

FusedAdam::FusedAdam(Optimizer kind, double learning_rate, FusedTrainingStep& step)
    : kind_(kind),
      learning_rate_(learning_rate),
      step_(step),
      averages_(at::zeros_like(step.weights().all())),
      squares_(at::zeros_like(step.weights().all())) {}

void FusedAdam::Step() {
  const FusedWeights& weights = step_.weights();
  const bool decoupled = kind_ == Optimizer::kAdamW;
  StepAdam adam{};
  adam.type = step_.type();
  adam.state = step_.state();
  adam.learning_rate = static_cast<float>(learning_rate_);
  adam.weight_decay = decoupled ? 0.01F : 0;
  adam.beta1 = static_cast<float>(kBeta1);
  adam.beta2 = static_cast<float>(kBeta2);
  adam.rest1 = static_cast<float>(1 - kBeta1);
  adam.rest2 = static_cast<float>(1 - kBeta2);
  adam.epsilon = 1e-8F;
  adam.decoupled_decay = decoupled;
  adam.count = weights.all().numel();
  adam.low_gradient_count = weights.low_gradients().numel();
  adam.low_count = weights.low_count();
  adam.weights = weights.all().mutable_data_ptr<float>();
  if (weights.low().defined()) adam.low_weights = weights.low().mutable_data_ptr();
  adam.low_gradients = weights.low_gradients().const_data_ptr();
  adam.gradients = weights.gradients().const_data_ptr<float>();
  adam.averages = averages_.mutable_data_ptr<float>();
  adam.squares = squares_.mutable_data_ptr<float>();
  step_.kernels().BeginUpdate(step_.state(), kBeta1, kBeta2);
  step_.kernels().Adam(adam);
}

int64_t FusedAdam::Bytes() const { return static_cast<int64_t>(averages_.nbytes() + squares_.nbytes()); }

}  // namespace attnfleet::trainer
