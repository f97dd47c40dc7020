#ifndef ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_LAUNCH_CUH_
#define ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_LAUNCH_CUH_

// How the fused attention's kernels are started, and what all of them load beside the matrices.

#include <type_traits>

#include "worker/trainer/cuda/fused_tile.cuh"

namespace attnfleet::trainer::fused {

__device__ __forceinline__ int64_t Padded(const FusedShape& shape) {
  return (shape.length + kFusedRowMultiple - 1) / kFusedRowMultiple * kFusedRowMultiple;
}
__device__ __forceinline__ float* RowValue(float* values, const FusedShape& shape, int b, int h, int row) {
  return values + (int64_t{b} * shape.heads + h) * Padded(shape) + row;
}
// The same number; what is computed from it stays where it is written, and takes no registers elsewhere.
__device__ __forceinline__ int Opaque(int value) {
  asm volatile("" : "+r"(value));
  return value;
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

// What belongs to a tile of queries.
struct QueryColumns {
  FusedTokens tokens;
  float lse[kFusedTile];
  float delta[kFusedTile];
};

// Of two tiles in shared memory that take turns: begins to load the next one, if there is one, and waits for this one.
template <class Load>
__device__ __forceinline__ void AwaitTile(bool more, const Load& load_next) {
  if (more) {
    load_next();
    CommitCopies();
    WaitForCopies<1>();
  } else {
    WaitForCopies<0>();
  }
  __syncthreads();
}

// Loads the tiles of a head's keys and values, one after the other.
template <int kBlock = kThreads>
class KeyLoader {
 public:
  __device__ __forceinline__ KeyLoader(const FusedForwardArguments& a, int b, int h)
      : k_(a.k, b, h, 0, a.shape.length),
        v_(a.v, b, h, 0, a.shape.length),
        tokens_(TokensOf(a.step.keys, a.shape, b)) {}

  __device__ __forceinline__ void Load(char* k, char* v, FusedTokens& columns) {
    LoadKeys(k, columns);
    LoadValues(v);
  }
  __device__ __forceinline__ void LoadKeys(char* k, FusedTokens& columns) {
    k_.Load(k);
    LoadTokens(columns, *tokens_++);
  }
  __device__ __forceinline__ void LoadValues(char* v) { v_.Load(v); }

 private:
  RowLoader<kFusedTile, kBlock> k_, v_;
  const FusedTokens* tokens_;
};

// The same of its queries and the gradients of their outputs.
class QueryLoader {
 public:
  __device__ __forceinline__ QueryLoader(const FusedBackwardArguments& arguments, int b, int h)
      : q_(arguments.forward.q, b, h, 0, arguments.forward.shape.length),
        dout_(arguments.dout, b, h, 0, arguments.forward.shape.length),
        tokens_(TokensOf(arguments.forward.step.queries, arguments.forward.shape, b)),
        lse_(RowValue(arguments.forward.lse, arguments.forward.shape, b, h, 0)),
        delta_(RowValue(arguments.delta, arguments.forward.shape, b, h, 0)) {}

  __device__ __forceinline__ void Load(char* q, char* dout, QueryColumns& columns) {
    q_.Load(q);
    dout_.Load(dout);
    LoadTokens(columns.tokens, *tokens_++);
    LoadRowValues(columns.lse, lse_, 64);
    LoadRowValues(columns.delta, delta_, 96);
    lse_ += kFusedTile;
    delta_ += kFusedTile;
  }

 private:
  RowLoader<kFusedTile, kThreads> q_, dout_;
  const FusedTokens* tokens_;
  const float* lse_;
  const float* delta_;
};

// The product of a row of `matrix` and of one of a tile; each of the four lanes of a row takes a quarter. 0 behind the
// end.
__device__ __forceinline__ float RowProduct(const FusedMatrix& matrix, int b, int h, int row, int length,
                                            const char* tile, int tile_row, int c) {
  float sum = 0;
  if (row < length) {
    const int4* const chunks = reinterpret_cast<const int4*>(RowPointer(matrix, b, h, row));
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int4 left = chunks[2 * c + i];
      const int4 right = *reinterpret_cast<const int4*>(tile + ChunkOffset(tile_row, 2 * c + i));
      const auto* const x = reinterpret_cast<const __nv_bfloat162*>(&left);
      const auto* const y = reinterpret_cast<const __nv_bfloat162*>(&right);
#pragma unroll
      for (int d = 0; d < 4; ++d) {
        const float2 a = __bfloat1622float2(x[d]), o = __bfloat1622float2(y[d]);
        sum += a.x * o.x + a.y * o.y;
      }
    }
  }
  return QuadSum(sum);
}

// Where rows are keys: from 16 x 16 scores and gradients of the dropped probabilities, the dropped probabilities and
// the gradients of the scores. With dropout that keeps a part k, all gradients of the scores are k times too large, and
// the kernels divide their sums by k.
template <bool kDropout>
__device__ __forceinline__ void KeyRowGradients(float (&scores)[2][4], float (&gradients)[2][4],
                                                const QueryColumns& columns, int column, float constant,
                                                const Random128& draw, const FusedDropout& dropout, int c) {
  bool keeps[2][4];
  if constexpr (kDropout) KeepsKeyRows(keeps, draw, dropout);
#pragma unroll
  for (int u = 0; u < 2; ++u) {
    const int first = column + 8 * u + 2 * c;
    const float2 lse = *reinterpret_cast<const float2*>(&columns.lse[first]);
    const float2 delta = *reinterpret_cast<const float2*>(&columns.delta[first]);
    const float down[2] = {lse.x - constant * kScale, lse.y - constant * kScale};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float p = Exp2(scores[u][i] * kScale - down[i % 2]);
      const float kept = !kDropout || keeps[u][i] ? p : 0;
      scores[u][i] = kept;
      gradients[u][i] = kept * gradients[u][i] - p * (i % 2 == 0 ? delta.x : delta.y);
    }
  }
}

// One block for each 64 `groups` rows of each head of each sequence. Null, or what CUDA says is wrong.
template <class Arguments>
const char* Launch(void (*kernel)(Arguments), const FusedShape& shape, int groups, int shared_bytes,
                   cudaStream_t stream, const Arguments& arguments) {
  cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (status == cudaSuccess) {
    const int rows = kFusedTile * groups;
    const dim3 grid(static_cast<unsigned>((shape.length + rows - 1) / rows), static_cast<unsigned>(shape.heads),
                    static_cast<unsigned>(shape.batch));
    kernel<<<grid, kThreads * groups, shared_bytes, stream>>>(arguments);
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

// The kernels. Forward passes write out and lse, query gradients dq and delta, key gradients, which read delta, dk and
// dv; table gradients, which read delta too, those of the tables.
const char* AmpereForward(const FusedForwardArguments& arguments, cudaStream_t stream);
const char* AmpereQueryGradients(const FusedBackwardArguments& arguments, cudaStream_t stream);
const char* AmpereKeyGradients(const FusedBackwardArguments& arguments, cudaStream_t stream);
const char* AmpereTableGradients(const FusedBackwardArguments& arguments, cudaStream_t stream);
const char* HopperForward(const FusedForwardArguments& arguments, cudaStream_t stream);
const char* HopperQueryGradients(const FusedBackwardArguments& arguments, cudaStream_t stream);
const char* HopperKeyGradients(const FusedBackwardArguments& arguments, cudaStream_t stream);

}  // namespace attnfleet::trainer::fused

#endif  // ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_LAUNCH_CUH_
