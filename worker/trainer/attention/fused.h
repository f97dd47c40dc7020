#ifndef ATTNFLEET_WORKER_TRAINER_ATTENTION_FUSED_H_
#define ATTNFLEET_WORKER_TRAINER_ATTENTION_FUSED_H_

// The backend `fused`, taken apart for its tests.

#include "worker/trainer/attention/contract.h"
#include "worker/trainer/cuda/contract.h"

namespace attnfleet::trainer {

// What all layers of a step share; `step` points into `memory`.
struct FusedState {
  std::shared_ptr<FusedAttention> kernels;
  FusedShape shape;
  FusedStep step;
  at::Tensor memory;
  // Where the tables train, they as autograd knows them, fp32, and their buckets; else undefined.
  at::Tensor relative_table, x_table, y_table;
  at::Tensor relative_buckets, spatial_buckets;
};

std::shared_ptr<const FusedState> PrepareFused(std::shared_ptr<FusedAttention> kernels, const AttentionProblem& problem,
                                               const BiasSource& source);

// As Backend::forward, with this dropout.
at::Tensor ForwardFused(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const std::shared_ptr<const FusedState>& state, const FusedDropout& dropout);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_ATTENTION_FUSED_H_
