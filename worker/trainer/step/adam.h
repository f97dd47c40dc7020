#ifndef ATTNFLEET_WORKER_TRAINER_STEP_ADAM_H_
#define ATTNFLEET_WORKER_TRAINER_STEP_ADAM_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "worker/trainer/config.h"
#include "worker/trainer/step/fused_step.h"

namespace attnfleet::trainer {

// AdamOptimizer of the fused step: over all parameters at once, low copies written in the same pass.
class FusedAdam {
 public:
  FusedAdam(Optimizer kind, double learning_rate, FusedTrainingStep& step);

  // Updates every parameter from the gradients of the last backward pass.
  void Step();

  // Of its own tensors.
  int64_t Bytes() const;

 private:
  const Optimizer kind_;
  const double learning_rate_;
  FusedTrainingStep& step_;
  at::Tensor averages_, squares_;
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_STEP_ADAM_H_
