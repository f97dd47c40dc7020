#ifndef ATTNFLEET_WORKER_TRAINER_STEP_OPERATIONS_H_
#define ATTNFLEET_WORKER_TRAINER_STEP_OPERATIONS_H_

// The fused step's operations as autograd sees them: each with a backward pass of its own, in which the gradients of
// parameters go straight to their places. Matrices of (tokens, columns).

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

#include "worker/trainer/cuda/step_kernels.h"
#include "worker/trainer/step/weights.h"

namespace attnfleet::trainer {

// What an operation needs beside its matrices; it outlives the backward pass.
struct StepContext {
  StepKernels* kernels;
  at::ScalarType low, stream;
  float epsilon;
};

// The residual stream behind a norm: for the next addition, and low for the next product. Where the stream is low, both
// are one piece of memory; two tensors of autograd's all the same, whose gradients arrive apart.
struct Stream {
  at::Tensor y, low_y;
};

// The sum of all embeddings, its norm and dropout. `rows` (tokens, 8) as StepKernels::EmbeddingRows gives them.
// `anchor` is any tensor that requires a gradient; it gets none.
Stream EmbedTokens(const StepContext& context, const at::Tensor& anchor, const at::Tensor& rows,
                   const StepTables& tables, const FusedWeights& weights, const StepDropout& dropout);

// dropout(norm(x)).
Stream NormAndDrop(const StepContext& context, const at::Tensor& x, const StepNormWeights& norm,
                   const StepDropout& dropout);

// The tokens as attention has them, which the rows of a matrix are only some of.
struct AttentionTokens {
  int64_t batch, heads;
  int64_t count;    // B S
  at::Tensor rows;  // indices of the matrix's rows among them; undefined: it has them all
};

// Queries, keys and values (B, H, S, D) of (tokens, hidden): views of one (B, S, 3, H, D), which is 0 where there is no
// token.
std::array<at::Tensor, 3> ProjectQkv(const StepContext& context, const at::Tensor& low_x, const StepProduct& product,
                                     const AttentionTokens& tokens);

// These rows of x, none twice.
at::Tensor TakeRows(const at::Tensor& x, const at::Tensor& rows);

// norm(dropout(product(low_x)) + residual).
Stream ProjectAndAdd(const StepContext& context, const at::Tensor& low_x, const at::Tensor& residual,
                     const StepProduct& product, const StepNormWeights& norm, const StepDropout& dropout);

// The same behind a first product and gelu.
Stream FeedForward(const StepContext& context, const at::Tensor& low_x, const at::Tensor& residual,
                   const StepLayer& layer, const StepDropout& dropout);

// x W^T + bias, low.
at::Tensor Multiply(const StepContext& context, const at::Tensor& low_x, const StepProduct& product);

// second(first(x)) in the low type.
at::Tensor Drop(const StepContext& context, const at::Tensor& x, const StepDropout& first, const StepDropout& second);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_STEP_OPERATIONS_H_
