#ifndef ATTNFLEET_WORKER_TRAINER_CHECK_H_
#define ATTNFLEET_WORKER_TRAINER_CHECK_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "worker/trainer/attention/contract.h"
#include "worker/trainer/events.h"
#include "worker/trainer/model.h"
#include "worker/trainer/step/fused_step.h"

namespace attnfleet::trainer {

struct CheckSubject {
  const Model& model;  // its parameters' gradients must be free; they are used and dropped
  const Backend& backend;
  const Batch& batch;
  at::ScalarType type;                 // as Forward() takes it
  bool mixed = false;                  // under bf16 autocast
  FusedTrainingStep* fused = nullptr;  // that was made of the model; null: the reference step
};

// Runs the subject and eager in fp64 on the same weights and the same batch, dropout off, and tells how far apart they
// are: the logits of tokens that are not padding, the loss, the gradient of every parameter. For eager that is the
// error of its own precision. `free_bytes` says how much memory there is (and may free some): of the batch's sequences
// it takes as many from the front as fit, by an estimate, and half as many again and again where that was too much.
// Never throws.
NumericalCheck CheckAgainstEager(const CheckSubject& subject, const std::function<int64_t()>& free_bytes);

// Largest absolute difference over largest absolute value of `exact`, or over `least` where that value is smaller.
// Infinite if both are 0 and there is a difference; NaN where either tensor holds one.
double RelativeError(const at::Tensor& value, const at::Tensor& exact, double least = 0);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_CHECK_H_
