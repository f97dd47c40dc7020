#ifndef ATTNFLEET_TESTS_WORKER_TRAINER_FUSED_REFERENCE_H_
#define ATTNFLEET_TESTS_WORKER_TRAINER_FUSED_REFERENCE_H_

// What the backend `fused` computes, in plain C++ and fp64: the first step of its ladder, and the same arithmetic of
// value tables, offsets and dropout as in its kernels.

#include <cstdint>
#include <vector>

#include "worker/trainer/cuda/fused_attention.h"

namespace attnfleet::trainer {

// Tensors are (B, H, S, D), row by row.
struct FusedReferenceInput {
  int batch = 0, heads = 0, length = 0, head_size = 0;
  std::vector<double> q, k, v, dout;
  std::vector<double> relative_table, x_table, y_table;  // (H, 32), (H, 64), (H, 64); none: zeros
  std::vector<int64_t> positions;                        // (S)
  std::vector<int64_t> x, y;                             // (B, S)
  std::vector<int64_t> mask;                             // (B, S)
  FusedDropout dropout = MakeFusedDropout(0, 0, 0);
};

struct FusedReferenceOutput {
  std::vector<double> out, dq, dk, dv;
  std::vector<double> drelative, dx, dy;  // of the tables, where there are any
};

FusedReferenceOutput FusedReference(const FusedReferenceInput& input);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_TESTS_WORKER_TRAINER_FUSED_REFERENCE_H_
