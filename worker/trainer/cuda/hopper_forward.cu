// The forward pass for Hopper: a warpgroup has 64 queries, a block kGroups of them, and goes through the keys in tiles
// of 64, three of them in shared memory. While wgmma adds the products with V, the next tile's biases are looked up.

#include "worker/trainer/cuda/fused_wgmma.cuh"

namespace attnfleet::trainer {
namespace {

using namespace fused;

#ifndef ATTNFLEET_HF_GROUPS
#define ATTNFLEET_HF_GROUPS 2
#endif
#ifndef ATTNFLEET_HF_OCC
#define ATTNFLEET_HF_OCC 2
#endif
constexpr int kGroups = ATTNFLEET_HF_GROUPS;
constexpr int kBlock = 128 * kGroups;
constexpr int kStages = 3;
// A row's maximum is only followed once it has grown by this factor, as a power of two.
constexpr float kSlack = 8;

struct Shared {
  char q[kGroups][kTileBytes];
  char k[kStages][kTileBytes];
  char v[kStages][kTileBytes];
  KeyColumns columns[kStages];
};

// The next tile of keys.
struct KeyLoader {
  RowLoader<kFusedTile, kBlock> k, v;
  const FusedTokens* tokens;

  __device__ __forceinline__ void Load(Shared& shared, int tile) {
    const int stage = tile % kStages;
    k.Load(shared.k[stage]);
    v.Load(shared.v[stage]);
    LoadTokens(shared.columns[stage].tokens, tokens[tile]);
  }
};

template <bool kBias, bool kDropout>
__global__ void __launch_bounds__(kBlock, ATTNFLEET_HF_OCC)
    HopperForwardKernel(const __grid_constant__ FusedForwardArguments a) {
  __shared__ __align__(16) char tables[4 * kFusedTables];
  extern __shared__ char memory[];
  Shared& shared = *reinterpret_cast<Shared*>(AlignTiles(memory));
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, group = threadIdx.x / 128;
  const int g = lane / 4, c = lane % 4, b = blockIdx.z, h = blockIdx.y;
  const int block_row = blockIdx.x * kFusedTile * kGroups, first = block_row + group * kFusedTile + warp * 16;
  const int tiles = a.step.key_tiles[b];

  KeyLoader keys{{a.k, b, h, 0, a.shape.length}, {a.v, b, h, 0, a.shape.length}, TokensOf(a.step.keys, a.shape, b)};
  RowLoader<kFusedTile * kGroups, kBlock>(a.q, b, h, block_row, a.shape.length).Load(shared.q[0]);
  if constexpr (kBias) LoadTables(tables, a.step.tables, h);
  if (tiles > 0) keys.Load(shared, 0);
  CommitCopies();
  if (tiles > 1) keys.Load(shared, 1);
  CommitCopies();

  RowPart rows[1];
  RowRanges ranges;
  if constexpr (kBias) ranges = LoadRowParts<1>(rows, TokensOf(a.step.queries, a.shape, b), first, g);
  const auto start_scores = [&](Accumulator& scores, int tile) -> float {
    if constexpr (!kBias) return 0;
    const FusedTokens& columns = shared.columns[tile % kStages].tokens;
    const TileClass kind = Classify(tables, ranges, columns.info);
    Biases(scores, tables, columns, 0, rows[0], kind, c);
    return kind.constant;
  };
  Accumulator scores, out = {};
  float constant = 0;  // belongs to all of the scores
  float top[2] = {-INFINITY, -INFINITY}, shift[2] = {0, 0}, sum[2] = {0, 0};
  WaitForCopies<1>();
  FenceSharedForWgmma();
  __syncthreads();
  const uint64_t q = TileDescriptor(shared.q[group]);
  if (tiles > 0) constant = start_scores(scores, 0);

  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % kStages;
    Pin(scores);
    WgmmaFence();
    MultiplyRows(scores, q, TileDescriptor(shared.k[stage]), kBias);
    WgmmaCommit();
    Random128 draws[4];
    if constexpr (kDropout) {
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        draws[t] = DrawForQueryRows(a.dropout, b * a.shape.heads + h, first, tile * kFusedTile + 16 * t, lane);
      }
    }
    WgmmaWait<0>();
    Pin(scores);

    const KeyColumns& columns = shared.columns[stage];
    if (columns.tokens.info.masked) {
#pragma unroll
      for (int t = 0; t < 4; ++t) {
#pragma unroll
        for (int u = 0; u < 2; ++u) {
          const float2 mask = *reinterpret_cast<const float2*>(&columns.tokens.mask[16 * t + 8 * u + 2 * c]);
          for (int i = 0; i < 4; ++i) scores[t][u][i] += i % 2 == 0 ? mask.x : mask.y;
        }
      }
    }

    float most[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      most[r] = -INFINITY;
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        for (int u = 0; u < 2; ++u) most[r] = fmaxf(most[r], fmaxf(scores[t][u][2 * r], scores[t][u][2 * r + 1]));
      }
      most[r] = fmaxf(top[r], most[r] + constant);
      most[r] = fmaxf(most[r], __shfl_xor_sync(~0u, most[r], 1));
      most[r] = fmaxf(most[r], __shfl_xor_sync(~0u, most[r], 2));
    }
    // Not a number where both are -inf: nothing has grown.
    if (__any_sync(~0u, (most[0] - top[0]) * kScale > kSlack || (most[1] - top[1]) * kScale > kSlack)) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (most[r] == -INFINITY) continue;
        const float decay = Exp2((top[r] - most[r]) * kScale);
        top[r] = most[r];
        shift[r] = most[r] * kScale;
        sum[r] *= decay;
#pragma unroll
        for (int n = 0; n < 8; ++n) {
          out[n / 2][n % 2][2 * r] *= decay;
          out[n / 2][n % 2][2 * r + 1] *= decay;
        }
      }
    }
    const float down[2] = {shift[0] - constant * kScale, shift[1] - constant * kScale};
    uint32_t p[4][4];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
#pragma unroll
      for (int u = 0; u < 2; ++u) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& score = scores[t][u][i];
          score = Exp2(score * kScale - down[i / 2]);
          sum[i / 2] += score;
        }
      }
      if constexpr (kDropout) {
        KeepFlags keep;
        KeepForQueryRows(keep, draws[t], KeepEnd(a.dropout));
        Drop(scores[t], keep);
      }
      PackA(p[t], scores[t][0], scores[t][1]);
    }

    Pin(out);
    WgmmaFence();
    MultiplyColumns(out, p, TileDescriptor(shared.v[stage]));
    WgmmaCommit();
    if (tile + 1 < tiles) {
      // The next tile is here, and every warpgroup is done with the one before this.
      WaitForCopies<0>();
      FenceSharedForWgmma();
      __syncthreads();
      if (tile + 2 < tiles) keys.Load(shared, tile + 2);
      CommitCopies();
      constant = start_scores(scores, tile + 1);
    }
    WgmmaWait<0>();
    Pin(out);
  }

  WaitForCopies<0>();
  __syncthreads();
  const float kept = kDropout ? static_cast<float>(a.dropout.threshold) / 65536 : 1;
  float scale[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
    sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
    scale[r] = sum[r] > 0 ? 1 / (sum[r] * kept) : 0;
    const int row = first + g + 8 * r;
    if (c == 0 && row < Padded(a.shape)) {
      *RowValue(a.lse, a.shape, b, h, row) = sum[r] > 0 && row < a.shape.length ? shift[r] + log2f(sum[r]) : INFINITY;
    }
  }
  StoreRows(a.out, b, h, first, a.shape.length, shared.q[group] + 16 * warp * kRowBytes,
            reinterpret_cast<const float(&)[8][4]>(out), scale[0], scale[1], lane);
}

}  // namespace

const char* fused::HopperForward(const FusedForwardArguments& arguments, cudaStream_t stream) {
  const auto launch = [&](auto bias, auto dropout) {
    return Launch(HopperForwardKernel<bias, dropout>, arguments.shape, kGroups, sizeof(Shared) + 1024, stream, arguments,
                  kBlock);
  };
  return Dispatch(arguments, launch);
}

}  // namespace attnfleet::trainer
