#ifndef ATTNFLEET_WORKER_TRAINER_CUDA_STEP_COMMON_CUH_
#define ATTNFLEET_WORKER_TRAINER_CUDA_STEP_COMMON_CUH_

// What the fused step's kernels share: elements side by side as fp32 numbers, dropout, sums over rows.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "worker/trainer/cuda/step_launch.h"

namespace attnfleet::trainer::step {

using Bf16 = __nv_bfloat16;

// Elements that lie side by side and that one thread has.
template <int kWidth>
struct Elements {
  float v[kWidth];
};

template <int kWidth>
__device__ __forceinline__ Elements<kWidth> Load(const float* from) {
  Elements<kWidth> to;
  if constexpr (kWidth % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kWidth; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + i);
      to.v[i] = four.x;
      to.v[i + 1] = four.y;
      to.v[i + 2] = four.z;
      to.v[i + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) to.v[i] = from[i];
  }
  return to;
}

template <int kWidth>
__device__ __forceinline__ Elements<kWidth> Load(const Bf16* from) {
  Elements<kWidth> to;
  if constexpr (kWidth == 8) {
    const uint4 packed = *reinterpret_cast<const uint4*>(from);
    const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      to.v[2 * i] = __uint_as_float(words[i] << 16);
      to.v[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) to.v[i] = __bfloat162float(from[i]);
  }
  return to;
}

template <int kWidth>
__device__ __forceinline__ void Store(float* to, const Elements<kWidth>& from) {
  if constexpr (kWidth % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kWidth; i += 4) {
      *reinterpret_cast<float4*>(to + i) = {from.v[i], from.v[i + 1], from.v[i + 2], from.v[i + 3]};
    }
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) to[i] = from.v[i];
  }
}

template <int kWidth>
__device__ __forceinline__ void Store(Bf16* to, const Elements<kWidth>& from) {
  if constexpr (kWidth == 8) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(from.v[2 * i], from.v[2 * i + 1]);
      words[i] = *reinterpret_cast<const uint32_t*>(&pair);
    }
    *reinterpret_cast<uint4*>(to) = {words[0], words[1], words[2], words[3]};
  } else {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) to[i] = __float2bfloat16_rn(from.v[i]);
  }
}

// A dropout on elements of a matrix, told by their index. Eight of them begin at a multiple of 8.
class Drops {
 public:
  __device__ __forceinline__ explicit Drops(const StepDropout& dropout)
      : on_(dropout.threshold < kStepKeepsAll), site_(dropout.site), threshold_(dropout.threshold) {
    if (!on_) return;
    seed_ = dropout.state->seed;
    pass_ = dropout.state->passes;
    scale_ = static_cast<float>(kStepKeepsAll) / static_cast<float>(threshold_);
  }

  template <int kWidth>
  __device__ __forceinline__ void Apply(Elements<kWidth>& x, int64_t first) const {
    static_assert(kWidth == 1 || kWidth == 8);
    if (!on_) return;
    const Random128 draw = StepDraw(seed_, pass_, site_, static_cast<uint32_t>(first / 8));
    if constexpr (kWidth == 8) {
#pragma unroll
      for (uint32_t i = 0; i < 8; ++i) x.v[i] = StepBits(draw, i) < threshold_ ? x.v[i] * scale_ : 0;
    } else {
      const auto index = static_cast<uint32_t>(first % 8);
      // Not by an index into the words, which would put them into memory.
      const uint32_t low = index & 2 ? draw.word[1] : draw.word[0], high = index & 2 ? draw.word[3] : draw.word[2];
      const uint32_t word = index & 4 ? high : low;
      x.v[0] = (index & 1 ? word >> 16 : word & 0xFFFF) < threshold_ ? x.v[0] * scale_ : 0;
    }
  }

 private:
  const bool on_;
  const uint32_t site_, threshold_;
  uint64_t seed_ = 0, pass_ = 0;
  float scale_ = 1;
};

__device__ __forceinline__ float WarpSum(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(~0u, value, distance);
  return value;
}

// Adds up what `blocks` blocks have summed: partial (kinds, kStepSumBlocks, columns) to the kinds' sums; a null sum is
// not wanted.
struct PartialSums {
  const float* partial;
  int blocks, columns;
  float* sums[3];
};
const char* AddPartialSums(const PartialSums& sums, int kinds, cudaStream_t stream);

inline const char* LastError() {
  const cudaError_t status = cudaGetLastError();
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

inline unsigned Blocks(int64_t items, int64_t of_a_block) {
  return static_cast<unsigned>((items + of_a_block - 1) / of_a_block);
}

}  // namespace attnfleet::trainer::step

#endif  // ATTNFLEET_WORKER_TRAINER_CUDA_STEP_COMMON_CUH_
