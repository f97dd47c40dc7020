#ifndef ATTNFLEET_WORKER_TRAINER_ATTENTION_CONTRACT_H_
#define ATTNFLEET_WORKER_TRAINER_ATTENTION_CONTRACT_H_

// What an attention backend is. A new one is one file with its Backend, and one row in backends.cc.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace attnfleet::trainer {

// What the attention of one step is about, before anything is allocated for it.
struct AttentionProblem {
  bool cuda = false;
  at::ScalarType type = at::kFloat;  // of q, k and v
  int64_t batch = 0;
  int64_t heads = 0;
  int64_t sequence_length = 0;
  int64_t head_size = 0;
  bool relative_bias = false;
  bool spatial_bias = false;
  bool padded = false;          // some key is masked
  bool bias_gradients = false;  // the bias tables train
  int compute_capability = 0;   // CUDA: 10 * major + minor
  double dropout = 0;           // of the probabilities
};

// Where the bias of (b, h, i, j) comes from: relative_table[h, bucket(p[j] - p[i])] + x_table[h, bucket(x[b,j] -
// x[b,i])] + y_table[h, bucket(y[b,j] - y[b,i])]. A table that is switched off is undefined.
struct BiasSource {
  at::Tensor relative_table;    // (H, 32) fp32
  at::Tensor x_table, y_table;  // (H, 64) fp32
  at::Tensor relative_buckets;  // int64 (2 R + 1): the bucket of a difference d, |d| <= R, is at d + R
  at::Tensor spatial_buckets;
  at::Tensor positions;       // (S) int64: of the 1-D bias; those of an image begin again at 0
  at::Tensor boxes;           // (B, S, 4) int64; x is column 0, y is column 3
  at::Tensor attention_mask;  // (B, S) int64: 1 for a key to attend to, 0 for padding
};

struct FusedState;  // of the backend `fused`

// What all layers of one step share. A backend's `prepare` fills what its `forward` reads, as it likes.
struct StepTensors {
  at::Tensor relative_bias;
  at::Tensor spatial_bias;
  at::Tensor mask;
  std::shared_ptr<const FusedState> fused;
};

struct AttentionInput {
  at::Tensor q, k, v;  // (B, H, S, D), possibly strided
  const StepTensors& step;
  double dropout = 0;  // 0 outside training
};

struct Backend {
  const char* name;
  const char* description;
  bool cpu;
  bool cuda;
  // Why this problem cannot be run, in one line for people, or nothing. Called before the model is built.
  std::optional<std::string> (*refuse)(const AttentionProblem& problem);
  // Once a step; without gradients unless the bias tables train (`bias_gradients`).
  StepTensors (*prepare)(const AttentionProblem& problem, const BiasSource& source);
  // softmax((q k^T + bias) / sqrt(D) + mask), dropout, times v: (B, H, S, D). Differentiable in q, k and v.
  at::Tensor (*forward)(const AttentionInput& input);
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_ATTENTION_CONTRACT_H_
