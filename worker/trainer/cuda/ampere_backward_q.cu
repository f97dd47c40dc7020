// The fused attention's backward pass, first half: dQ, and the sum of dout times out of each row, which the other half
// reads. As in the forward pass a block has 64 kMt queries and goes through the keys, so nothing is summed across blocks.

#include "worker/trainer/cuda/fused_backward.cuh"

namespace attnfleet::trainer {
namespace {

using namespace fused;

struct Shared {
  char k[2][kTileBytes];
  char v[2][kTileBytes];
  KeyColumns columns[2];
};

template <int kMt>
constexpr int kSharedBytes = sizeof(Shared) + 2 * kMt * kTileBytes;

// The next tile of keys.
struct KeyLoader {
  RowLoader<kFusedTile, kThreads> k, v;
  const FusedTokens* tokens;

  __device__ __forceinline__ void Load(Shared& shared, int tile) {
    const int stage = tile % 2;
    k.Load(shared.k[stage]);
    v.Load(shared.v[stage]);
    LoadTokens(shared.columns[stage].tokens, tokens[tile]);
  }
};

template <int kMt, bool kBias, bool kDropout>
__global__ void __launch_bounds__(kThreads, ATTNFLEET_OCC_Q)
    AmpereBackwardQueryKernel(const __grid_constant__ FusedBackwardArguments arguments) {
  __shared__ __align__(16) char tables[4 * kFusedTables];
  extern __shared__ __align__(128) char memory[];
  const FusedForwardArguments& a = arguments.forward;
  char* const q_tile = memory;
  char* const dout_tile = memory + kMt * kTileBytes;
  Shared& shared = *reinterpret_cast<Shared*>(memory + 2 * kMt * kTileBytes);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
  const int b = blockIdx.z, h = blockIdx.y;
  const int block_row = blockIdx.x * kFusedTile * kMt, warp_row = warp * 16 * kMt, first = block_row + warp_row;
  const int tiles = a.step.key_tiles[b];
  const float kept = kDropout ? static_cast<float>(a.dropout.threshold) / 65536 : 1;

  KeyLoader keys{{a.k, b, h, 0, a.shape.length}, {a.v, b, h, 0, a.shape.length}, TokensOf(a.step.keys, a.shape, b)};
  RowLoader<kFusedTile * kMt, kThreads>(a.q, b, h, block_row, a.shape.length).Load(q_tile);
  RowLoader<kFusedTile * kMt, kThreads>(arguments.dout, b, h, block_row, a.shape.length).Load(dout_tile);
  CommitCopies();
  if constexpr (kBias) LoadTables(tables, a.step.tables, h);
  if (tiles > 0) keys.Load(shared, 0);
  CommitCopies();

  RowPart rows[kMt];
  RowRanges ranges;
  if constexpr (kBias) ranges = LoadRowParts<kMt>(rows, TokensOf(a.step.queries, a.shape, b), first, g);

  WaitForCopies<1>();
  __syncthreads();
  uint32_t q[kMt][4][4], dout[kMt][4][4];
  float lse[kMt][2], delta[kMt][2];
#pragma unroll
  for (int m = 0; m < kMt; ++m) {
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      LoadA(q[m][step], q_tile, warp_row + 16 * m, step, lane);
      LoadA(dout[m][step], dout_tile, warp_row + 16 * m, step, lane);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = first + 16 * m + g + 8 * r;
      lse[m][r] = *RowValue(a.lse, a.shape, b, h, row);
      // The four lanes of a row take a quarter of it each.
      float sum = 0;
      if (row < a.shape.length) {
        const int4* const out = reinterpret_cast<const int4*>(RowPointer(a.out, b, h, row));
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int chunk = 2 * c + i;
          sum += Dot8(out[chunk], *reinterpret_cast<const int4*>(
                                      dout_tile + ChunkOffset(warp_row + 16 * m + g + 8 * r, chunk)));
        }
      }
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      delta[m][r] = sum * kept;
      if (c == 0) *RowValue(arguments.delta, a.shape, b, h, row) = delta[m][r];
    }
  }

  float dq[kMt][8][4] = {};
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % 2;
    if (tile + 1 < tiles) keys.Load(shared, tile + 1);
    CommitCopies();
    WaitForCopies<1>();
    __syncthreads();
    const KeyColumns& columns = shared.columns[stage];
    TileClass kind{};
    if constexpr (kBias) kind = Classify(tables, ranges, columns.tokens.info);

#pragma unroll
    for (int t = 0; t < 4; ++t) {
      float scores[kMt][1][2][4], gradients[kMt][2][4] = {};
#pragma unroll
      for (int m = 0; m < kMt; ++m) {
        if constexpr (kBias) {
          Biases(scores[m], tables, columns.tokens, 16 * t, rows[m], kind, c);
        } else {
          Zero(scores[m][0]);
        }
      }
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        uint32_t k[4], v[4];
        LoadB(k, shared.k[stage], 16 * t, step, lane);
        LoadB(v, shared.v[stage], 16 * t, step, lane);
#pragma unroll
        for (int m = 0; m < kMt; ++m) {
          MultiplyAdd(scores[m][0][0], q[m][step], k[0], k[1]);
          MultiplyAdd(scores[m][0][1], q[m][step], k[2], k[3]);
          MultiplyAdd(gradients[m][0], dout[m][step], v[0], v[1]);
          MultiplyAdd(gradients[m][1], dout[m][step], v[2], v[3]);
        }
      }
      const float constant = kind.constant * kScale;
      uint32_t ds[kMt][4];
#pragma unroll
      for (int m = 0; m < kMt; ++m) {
        if (columns.tokens.info.masked) {
#pragma unroll
          for (int u = 0; u < 2; ++u) {
            const float2 mask = *reinterpret_cast<const float2*>(&columns.tokens.mask[16 * t + 8 * u + 2 * c]);
            for (int i = 0; i < 4; ++i) scores[m][0][u][i] += i % 2 == 0 ? mask.x : mask.y;
          }
        }
        if constexpr (kDropout) {
          const Random128 draw = DrawForQueryRows(a.dropout, b * a.shape.heads + h, first + 16 * m,
                                                  tile * kFusedTile + 16 * t, lane);
          KeepFlags keep;
          KeepForQueryRows(keep, draw, KeepEnd(a.dropout));
          Drop(gradients[m], keep);
        }
#pragma unroll
        for (int u = 0; u < 2; ++u) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float p = Exp2(scores[m][0][u][i] * kScale - (lse[m][i / 2] - constant));
            scores[m][0][u][i] = p * (gradients[m][u][i] - delta[m][i / 2]);
          }
        }
        PackA(ds[m], scores[m][0][0], scores[m][0][1]);
      }
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        uint32_t k[4];
        LoadBTransposed(k, shared.k[stage], 16 * t, pair, lane);
#pragma unroll
        for (int m = 0; m < kMt; ++m) {
          MultiplyAdd(dq[m][2 * pair], ds[m], k[0], k[1]);
          MultiplyAdd(dq[m][2 * pair + 1], ds[m], k[2], k[3]);
        }
      }
    }
    __syncthreads();
  }

  WaitForCopies<0>();
  const float scale = kRoot / kept;
#pragma unroll
  for (int m = 0; m < kMt; ++m) {
    StoreRows(arguments.dq, b, h, first + 16 * m, a.shape.length, q_tile + (warp_row + 16 * m) * kRowBytes, dq[m],
              scale, scale, lane);
  }
}

}  // namespace

const char* fused::AmpereQueryGradients(const FusedBackwardArguments& arguments, cudaStream_t stream) {
  constexpr int kMt = kBackwardQueryMt;
  const auto launch = [&](auto bias, auto dropout) {
    return Launch(AmpereBackwardQueryKernel<kMt, bias, dropout>, arguments.forward.shape, kMt, kSharedBytes<kMt>, stream, arguments);
  };
  return Dispatch(arguments.forward, launch);
}

}  // namespace attnfleet::trainer
