#ifndef ATTNFLEET_WORKER_TRAINER_MODEL_PASS_H_
#define ATTNFLEET_WORKER_TRAINER_MODEL_PASS_H_

// Parts of a forward pass that the reference step (model.cc) and the fused one (step/) have in common.

#include "worker/trainer/model.h"

namespace attnfleet::trainer {

// One forward pass: what every part of it needs to know.
struct Pass {
  const Model& model;
  const Backend& backend;
  const Batch& batch;
  bool training;

  const ModelConfig& config() const { return model.config; }
};

// Hugging Face's forward_image: (B, visual tokens, hidden).
at::Tensor EmbedImage(const Pass& pass);

// What all layers' attention shares.
StepTensors PrepareAttention(const Pass& pass, const AttentionProblem& problem);

// at::tanh, and right from the first call of a process on. oneMKL, as LibTorch 2.11 carries it, chooses the kernel of a
// vector function when that is first called; where several threads call at once, one may get the kernel of AVX2 with 11
// bits for its part (https://github.com/pytorch/pytorch/issues/188792).
at::Tensor Tanh(const at::Tensor& x);

// Cross-entropy, mean over the labels that are not ignored; logits (tokens, labels).
at::Tensor Loss(const at::Tensor& logits, const at::Tensor& labels);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_MODEL_PASS_H_
