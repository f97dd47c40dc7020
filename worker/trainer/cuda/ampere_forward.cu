// The fused attention's forward pass: a block of 4 warps has 64 kMt queries of one head and goes through the keys in
// tiles of 64, two in flight, with an online softmax.

#include "worker/trainer/cuda/fused_launch.cuh"
#include "worker/trainer/cuda/fused_tile.cuh"

namespace attnfleet::trainer {
namespace {

using namespace fused;

struct Shared {
  char k[2][kTileBytes];
  char v[2][kTileBytes];
  KeyColumns columns[2];
};

template <int kMt>
constexpr int kSharedBytes = sizeof(Shared) + kMt * kTileBytes;

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
__global__ void __launch_bounds__(kThreads, ATTNFLEET_OCC_F) AmpereForwardKernel(const __grid_constant__ FusedForwardArguments a) {
  __shared__ __align__(16) char tables[4 * kFusedTables];
  extern __shared__ __align__(128) char memory[];
  char* const q_tile = memory;
  Shared& shared = *reinterpret_cast<Shared*>(memory + kMt * kTileBytes);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
  const int b = blockIdx.z, h = blockIdx.y;
  const int block_row = blockIdx.x * kFusedTile * kMt, warp_row = warp * 16 * kMt, first = block_row + warp_row;
  const int tiles = a.step.key_tiles[b];

  KeyLoader keys{{a.k, b, h, 0, a.shape.length}, {a.v, b, h, 0, a.shape.length}, TokensOf(a.step.keys, a.shape, b)};
  RowLoader<kFusedTile * kMt, kThreads>(a.q, b, h, block_row, a.shape.length).Load(q_tile);
  if constexpr (kBias) LoadTables(tables, a.step.tables, h);
  if (tiles > 0) keys.Load(shared, 0);
  CommitCopies();

  RowPart rows[kMt];
  RowRanges ranges;
  if constexpr (kBias) ranges = LoadRowParts<kMt>(rows, TokensOf(a.step.queries, a.shape, b), first, g);

  uint32_t q[kMt][4][4];
  float out[kMt][8][4] = {};
  float top[kMt][2], sum[kMt][2];
#pragma unroll
  for (int m = 0; m < kMt; ++m) {
    for (int r = 0; r < 2; ++r) {
      top[m][r] = -INFINITY;
      sum[m][r] = 0;
    }
  }

  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % 2;
    if (tile + 1 < tiles) keys.Load(shared, tile + 1);
    CommitCopies();
    WaitForCopies<1>();
    __syncthreads();
    if (tile == 0) {
#pragma unroll
      for (int m = 0; m < kMt; ++m) {
#pragma unroll
        for (int step = 0; step < 4; ++step) LoadA(q[m][step], q_tile, warp_row + 16 * m, step, lane);
      }
    }
    const KeyColumns& columns = shared.columns[stage];
    TileClass kind{};
    if constexpr (kBias) kind = Classify(tables, ranges, columns.tokens.info);

    float scores[kMt][4][2][4];
#pragma unroll
    for (int m = 0; m < kMt; ++m) {
      if constexpr (kBias) {
        Biases(scores[m], tables, columns.tokens, 0, rows[m], kind, c);
      } else {
        for (auto& sixteen : scores[m]) Zero(sixteen);
      }
    }
#pragma unroll
    for (int t = 0; t < 4; ++t) {
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        uint32_t k[4];
        LoadB(k, shared.k[stage], 16 * t, step, lane);
#pragma unroll
        for (int m = 0; m < kMt; ++m) {
          MultiplyAdd(scores[m][t][0], q[m][step], k[0], k[1]);
          MultiplyAdd(scores[m][t][1], q[m][step], k[2], k[3]);
        }
      }
    }
    if (columns.tokens.info.masked) {
#pragma unroll
      for (int t = 0; t < 4; ++t) {
#pragma unroll
        for (int u = 0; u < 2; ++u) {
          const float2 mask = *reinterpret_cast<const float2*>(&columns.tokens.mask[16 * t + 8 * u + 2 * c]);
#pragma unroll
          for (int m = 0; m < kMt; ++m) {
            for (int i = 0; i < 4; ++i) scores[m][t][u][i] += i % 2 == 0 ? mask.x : mask.y;
          }
        }
      }
    }

#pragma unroll
    for (int m = 0; m < kMt; ++m) {
      float shift[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float most = -INFINITY;
#pragma unroll
        for (int t = 0; t < 4; ++t) {
          for (int u = 0; u < 2; ++u) most = fmaxf(most, fmaxf(scores[m][t][u][2 * r], scores[m][t][u][2 * r + 1]));
        }
        most = fmaxf(top[m][r], most + kind.constant);
        most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
        most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
        shift[r] = most == -INFINITY ? 0 : most * kScale;
        const float decay = Exp2(top[m][r] * kScale - shift[r]);
        shift[r] -= kind.constant * kScale;
        top[m][r] = most;
        sum[m][r] *= decay;
#pragma unroll
        for (int n = 0; n < 8; ++n) {
          out[m][n][2 * r] *= decay;
          out[m][n][2 * r + 1] *= decay;
        }
      }
#pragma unroll
      for (int t = 0; t < 4; ++t) {
#pragma unroll
        for (int u = 0; u < 2; ++u) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            float& score = scores[m][t][u][i];
            score = Exp2(score * kScale - shift[i / 2]);
            sum[m][i / 2] += score;
          }
        }
      }
    }

#pragma unroll
    for (int t = 0; t < 4; ++t) {
      uint32_t p[kMt][4];
#pragma unroll
      for (int m = 0; m < kMt; ++m) {
        if constexpr (kDropout) {
          const Random128 draw = DrawForQueryRows(a.dropout, b * a.shape.heads + h, first + 16 * m,
                                                  tile * kFusedTile + 16 * t, lane);
          KeepFlags keep;
          KeepForQueryRows(keep, draw, KeepEnd(a.dropout));
          Drop(scores[m][t], keep);
        }
        PackA(p[m], scores[m][t][0], scores[m][t][1]);
      }
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        uint32_t v[4];
        LoadBTransposed(v, shared.v[stage], 16 * t, pair, lane);
#pragma unroll
        for (int m = 0; m < kMt; ++m) {
          MultiplyAdd(out[m][2 * pair], p[m], v[0], v[1]);
          MultiplyAdd(out[m][2 * pair + 1], p[m], v[2], v[3]);
        }
      }
    }
    __syncthreads();
  }

  WaitForCopies<0>();
  __syncthreads();
  const float kept = kDropout ? static_cast<float>(a.dropout.threshold) / 65536 : 1;
#pragma unroll
  for (int m = 0; m < kMt; ++m) {
    float scale[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float& total = sum[m][r];
      total += __shfl_xor_sync(~0u, total, 1);
      total += __shfl_xor_sync(~0u, total, 2);
      scale[r] = total > 0 ? 1 / (total * kept) : 0;
      const int row = first + 16 * m + g + 8 * r;
      if (c == 0) {
        *RowValue(a.lse, a.shape, b, h, row) =
            total > 0 && row < a.shape.length ? top[m][r] * kScale + log2f(total) : INFINITY;
      }
    }
    StoreRows(a.out, b, h, first + 16 * m, a.shape.length, q_tile + (warp_row + 16 * m) * kRowBytes, out[m], scale[0],
              scale[1], lane);
  }
}

}  // namespace

const char* fused::AmpereForward(const FusedForwardArguments& arguments, cudaStream_t stream) {
  constexpr int kMt = kForwardMt;
  const auto launch = [&](auto bias, auto dropout) {
    return Launch(AmpereForwardKernel<kMt, bias, dropout>, arguments.shape, kMt, kSharedBytes<kMt>, stream, arguments);
  };
  return Dispatch(arguments, launch);
}

}  // namespace attnfleet::trainer
