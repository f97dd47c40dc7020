// dK and dV for Hopper: see fused_backward_k.cu for what it computes and hopper_forward.cu for how.

#include "worker/trainer/cuda/fused_backward.cuh"
#include "worker/trainer/cuda/fused_wgmma.cuh"

namespace attnfleet::trainer {
namespace {

using namespace fused;

#ifndef ATTNFLEET_HK_GROUPS
#define ATTNFLEET_HK_GROUPS 1
#endif
#ifndef ATTNFLEET_HK_OCC
#define ATTNFLEET_HK_OCC 3
#endif
constexpr int kGroups = ATTNFLEET_HK_GROUPS;
constexpr int kBlock = 128 * kGroups;
constexpr int kStages = 2;

struct Shared {
  char k[kGroups][kTileBytes];
  char v[kGroups][kTileBytes];
  char q[kStages][kTileBytes];
  char dout[kStages][kTileBytes];
  QueryColumns columns[kStages];
};

// The next tile of queries.
struct QueryLoader {
  RowLoader<kFusedTile, kBlock> q, dout;
  const FusedTokens* tokens;
  const float* lse;
  const float* delta;

  __device__ __forceinline__ void Load(Shared& shared, int tile) {
    const int stage = tile % kStages;
    q.Load(shared.q[stage]);
    dout.Load(shared.dout[stage]);
    LoadTokens(shared.columns[stage].tokens, tokens[tile]);
    LoadRowValues(shared.columns[stage].lse, lse + tile * kFusedTile, 64);
    LoadRowValues(shared.columns[stage].delta, delta + tile * kFusedTile, 96);
  }
};

template <bool kBias, bool kDropout>
__global__ void __launch_bounds__(kBlock, ATTNFLEET_HK_OCC)
    HopperBackwardKeyKernel(const __grid_constant__ FusedBackwardArguments arguments) {
  __shared__ __align__(16) char tables[4 * kFusedTables];
  extern __shared__ char memory[];
  const FusedForwardArguments& a = arguments.forward;
  Shared& shared = *reinterpret_cast<Shared*>(AlignTiles(memory));
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, group = threadIdx.x / 128;
  const int g = lane / 4, c = lane % 4, b = blockIdx.z, h = blockIdx.y;
  const int block_row = blockIdx.x * kFusedTile * kGroups, first = block_row + group * kFusedTile + warp * 16;
  const bool padding = block_row / kFusedTile >= a.step.key_tiles[b];  // all of the block
  const int tiles = padding ? 0 : (a.shape.length + kFusedTile - 1) / kFusedTile;
  const float kept = kDropout ? static_cast<float>(a.dropout.threshold) / 65536 : 1;

  QueryLoader queries{{a.q, b, h, 0, a.shape.length},
                      {arguments.dout, b, h, 0, a.shape.length},
                      TokensOf(a.step.queries, a.shape, b),
                      RowValue(a.lse, a.shape, b, h, 0),
                      RowValue(arguments.delta, a.shape, b, h, 0)};
  const FusedTokens* const keys = TokensOf(a.step.keys, a.shape, b);
  RowLoader<kFusedTile * kGroups, kBlock>(a.k, b, h, block_row, a.shape.length).Load(shared.k[0]);
  RowLoader<kFusedTile * kGroups, kBlock>(a.v, b, h, block_row, a.shape.length).Load(shared.v[0]);
  if constexpr (kBias) LoadTables(tables, a.step.tables, h);
  if (tiles > 0) queries.Load(shared, 0);
  CommitCopies();
  if (tiles > 1) queries.Load(shared, 1);
  CommitCopies();

  RowPart rows[1];
  RowRanges ranges;
  if constexpr (kBias) ranges = LoadRowParts<1>(rows, keys, first, g);
  const FusedTokens& own = keys[first / kFusedTile];
  const bool masked = own.info.masked;
  float mask[2] = {0, 0};
  if (masked) {
    for (int r = 0; r < 2; ++r) mask[r] = own.mask[first % kFusedTile + g + 8 * r];
  }
  WaitForCopies<1>();
  FenceSharedForWgmma();
  __syncthreads();

  const uint64_t k = TileDescriptor(shared.k[group]), v = TileDescriptor(shared.v[group]);
  Accumulator scores, gradients, dk = {}, dv = {};
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % kStages;
    const QueryColumns& columns = shared.columns[stage];
    float constant = 0;  // belongs to all of the scores
    if constexpr (kBias) {
      const TileClass kind = Classify(tables, ranges, columns.tokens.info);
      Biases(scores, tables, columns.tokens, 0, rows[0], kind, c);
      constant = kind.constant * kScale;
    }
    Pin(scores);
    Pin(gradients);
    WgmmaFence();
    MultiplyRows(gradients, v, TileDescriptor(shared.dout[stage]), false);
    MultiplyRows(scores, k, TileDescriptor(shared.q[stage]), kBias);
    WgmmaCommit();
    Random128 draws[4];
    if constexpr (kDropout) {
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        draws[t] = DrawForKeyRows(a.dropout, b * a.shape.heads + h, tile * kFusedTile + 16 * t, first, lane);
      }
    }
    WgmmaWait<0>();
    Pin(scores);
    Pin(gradients);
    if (masked) {
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        for (int u = 0; u < 2; ++u) {
          for (int i = 0; i < 4; ++i) scores[t][u][i] += mask[i / 2];
        }
      }
    }
    uint32_t p[4][4], ds[4][4];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      KeepFlags keep;
      if constexpr (kDropout) KeepForKeyRows(keep, draws[t], KeepEnd(a.dropout));
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        const int column = 16 * t + 8 * u + 2 * c;
        float2 lse = *reinterpret_cast<const float2*>(&columns.lse[column]);
        if constexpr (kBias) lse = {lse.x - constant, lse.y - constant};
        const float2 delta = *reinterpret_cast<const float2*>(&columns.delta[column]);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float probability = Exp2(scores[t][u][i] * kScale - (i % 2 == 0 ? lse.x : lse.y));
          const bool kept_one = !kDropout || keep[u][i];
          scores[t][u][i] = kept_one ? probability : 0;
          gradients[t][u][i] =
              probability * ((kept_one ? gradients[t][u][i] : 0) - (i % 2 == 0 ? delta.x : delta.y));
        }
      }
      PackA(p[t], scores[t][0], scores[t][1]);
      PackA(ds[t], gradients[t][0], gradients[t][1]);
    }
    Pin(dv);
    Pin(dk);
    WgmmaFence();
    MultiplyColumns(dv, p, TileDescriptor(shared.dout[stage]));
    MultiplyColumns(dk, ds, TileDescriptor(shared.q[stage]));
    WgmmaCommit();
    WgmmaWait<0>();
    Pin(dv);
    Pin(dk);
    if (tile + 1 < tiles) {
      __syncthreads();
      if (tile + 2 < tiles) queries.Load(shared, tile + 2);
      CommitCopies();
      WaitForCopies<1>();
      FenceSharedForWgmma();
      __syncthreads();
    }
  }

  WaitForCopies<0>();
  __syncthreads();
  char* const scratch = shared.k[group] + 16 * warp * kRowBytes;
  StoreRows(arguments.dk, b, h, first, a.shape.length, scratch, reinterpret_cast<const float(&)[8][4]>(dk),
            kRoot / kept, kRoot / kept, lane);
  StoreRows(arguments.dv, b, h, first, a.shape.length, scratch, reinterpret_cast<const float(&)[8][4]>(dv), 1 / kept,
            1 / kept, lane);
}

}  // namespace

const char* fused::HopperKeyGradients(const FusedBackwardArguments& arguments, cudaStream_t stream) {
  const auto launch = [&](auto bias, auto dropout) {
    return Launch(HopperBackwardKeyKernel<bias, dropout>, arguments.forward.shape, kGroups, sizeof(Shared) + 1024, stream,
                  arguments, kBlock);
  };
  return Dispatch(arguments.forward, launch);
}

}  // namespace attnfleet::trainer
