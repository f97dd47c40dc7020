#ifndef ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_BACKWARD_CUH_
#define ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_BACKWARD_CUH_

// What the two halves of the fused attention's backward pass share. Both compute the probabilities again. With dropout
// that keeps a part k, they work with k times the gradient of the scores and divide their sums by k at the end.

#include "worker/trainer/cuda/fused_launch.cuh"

namespace attnfleet::trainer::fused {

// The scalar product of eight bf16 numbers.
__device__ __forceinline__ float Dot8(const int4& a, const int4& b) {
  const auto* const left = reinterpret_cast<const __nv_bfloat162*>(&a);
  const auto* const right = reinterpret_cast<const __nv_bfloat162*>(&b);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 x = __bfloat1622float2(left[i]), y = __bfloat1622float2(right[i]);
    sum += x.x * y.x + x.y * y.y;
  }
  return sum;
}

}  // namespace attnfleet::trainer::fused

#endif  // ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_BACKWARD_CUH_
