#ifndef ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_LAUNCH_CUH_
#define ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_LAUNCH_CUH_

// How the fused attention's kernels are started, and what all of them load beside the matrices.

#include <type_traits>

#include "worker/trainer/cuda/fused_tile.cuh"

namespace attnfleet::trainer::fused {

// Blocks of 16 rows for a warp: more need fewer reads of shared memory and more registers.
#ifndef ATTNFLEET_MT_F
#define ATTNFLEET_MT_F 1
#endif
#ifndef ATTNFLEET_MT_Q
#define ATTNFLEET_MT_Q 1
#endif
#ifndef ATTNFLEET_OCC_F
#define ATTNFLEET_OCC_F 3
#endif
#ifndef ATTNFLEET_OCC_Q
#define ATTNFLEET_OCC_Q 3
#endif
#ifndef ATTNFLEET_OCC_K
#define ATTNFLEET_OCC_K 3
#endif
constexpr int kForwardMt = ATTNFLEET_MT_F;
constexpr int kBackwardQueryMt = ATTNFLEET_MT_Q;

__device__ __forceinline__ int64_t Padded(const FusedShape& shape) {
  return (shape.length + kFusedRowMultiple - 1) / kFusedRowMultiple * kFusedRowMultiple;
}
__device__ __forceinline__ float* RowValue(float* values, const FusedShape& shape, int b, int h, int row) {
  return values + (int64_t{b} * shape.heads + h) * Padded(shape) + row;
}
// The first tile of sequence b.
__device__ __forceinline__ const FusedTokens* TokensOf(const FusedTokens* tokens, const FusedShape& shape, int b) {
  return tokens + b * (Padded(shape) / kFusedTile);
}

__device__ __forceinline__ void LoadTables(char* shared, const float* tables, int h) {
  constexpr int kChunks = 4 * kFusedTables / 16;
  const char* const from = reinterpret_cast<const char*>(tables + h * kFusedTables);
  for (int i = threadIdx.x; i < kChunks; i += blockDim.x) CopyAsync(shared + 16 * i, from + 16 * i);
}

// A tile's keys or queries; with at least 128 threads.
__device__ __forceinline__ void LoadTokens(FusedTokens& to, const FusedTokens& from) {
  if (threadIdx.x < sizeof(FusedTokens) / 16) {
    CopyAsync(reinterpret_cast<char*>(&to) + 16 * threadIdx.x, reinterpret_cast<const char*>(&from) + 16 * threadIdx.x);
  }
}
__device__ __forceinline__ void LoadRowValues(float* to, const float* from, unsigned first_thread) {
  const unsigned i = threadIdx.x - first_thread;
  if (i < kFusedTile / 4) CopyAsync(to + 4 * i, from + 4 * i);
}

// The parts of a warp's rows, whose first is row `first` of `tokens`, and their ranges.
template <int kMt>
__device__ __forceinline__ RowRanges LoadRowParts(RowPart (&rows)[kMt], const FusedTokens* tokens, int first, int g) {
  RowRanges ranges;
#pragma unroll
  for (int m = 0; m < kMt; ++m) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = first + 16 * m + g + 8 * r;
      rows[m].xy[r] = tokens[row / kFusedTile].xy[row % kFusedTile];
      rows[m].p[r] = tokens[row / kFusedTile].p[row % kFusedTile];
    }
    const RowRanges more = RangesOf(rows[m]);
    ranges = m == 0 ? more : RowRanges{Union(ranges.x, more.x), Union(ranges.y, more.y), Union(ranges.p, more.p)};
  }
  return ranges;
}

// One block for each 64 `mt` rows of each head of each sequence. Null, or what CUDA says is wrong.
template <class Arguments>
const char* Launch(void (*kernel)(Arguments), const FusedShape& shape, int mt, int shared_bytes, cudaStream_t stream,
                   const Arguments& arguments, int threads = kThreads) {
  cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (status == cudaSuccess) {
    const int rows = kFusedTile * mt;
    const dim3 grid(static_cast<unsigned>((shape.length + rows - 1) / rows), static_cast<unsigned>(shape.heads),
                    static_cast<unsigned>(shape.batch));
    kernel<<<grid, threads, shared_bytes, stream>>>(arguments);
    status = cudaGetLastError();
  }
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

// Calls launch(bias, dropout) with constants.
template <class Launcher>
const char* Dispatch(const FusedForwardArguments& arguments, const Launcher& launch) {
  constexpr std::true_type kYes;
  constexpr std::false_type kNo;
  const bool drops = arguments.dropout.threshold < 65536;
  if (arguments.shape.bias) return drops ? launch(kYes, kYes) : launch(kYes, kNo);
  return drops ? launch(kNo, kYes) : launch(kNo, kNo);
}

// The kernels. Forward passes write out and lse, query gradients dq and delta, key gradients, which read delta, dk and dv.
const char* AmpereForward(const FusedForwardArguments& arguments, cudaStream_t stream);
const char* AmpereQueryGradients(const FusedBackwardArguments& arguments, cudaStream_t stream);
const char* AmpereKeyGradients(const FusedBackwardArguments& arguments, cudaStream_t stream);
const char* HopperForward(const FusedForwardArguments& arguments, cudaStream_t stream);
const char* HopperQueryGradients(const FusedBackwardArguments& arguments, cudaStream_t stream);
const char* HopperKeyGradients(const FusedBackwardArguments& arguments, cudaStream_t stream);

}  // namespace attnfleet::trainer::fused

#endif  // ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_LAUNCH_CUH_
