// dQ for Hopper: see fused_backward_q.cu for what it computes and hopper_forward.cu for how.

#include "worker/trainer/cuda/fused_backward.cuh"
#include "worker/trainer/cuda/fused_wgmma.cuh"

namespace attnfleet::trainer {
namespace {

using namespace fused;

#ifndef ATTNFLEET_HQ_GROUPS
#define ATTNFLEET_HQ_GROUPS 1
#endif
#ifndef ATTNFLEET_HQ_OCC
#define ATTNFLEET_HQ_OCC 3
#endif
constexpr int kGroups = ATTNFLEET_HQ_GROUPS;
constexpr int kBlock = 128 * kGroups;
constexpr int kStages = 2;

struct Shared {
  char q[kGroups][kTileBytes];
  char dout[kGroups][kTileBytes];
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
__global__ void __launch_bounds__(kBlock, ATTNFLEET_HQ_OCC)
    HopperBackwardQueryKernel(const __grid_constant__ FusedBackwardArguments arguments) {
  __shared__ __align__(16) char tables[4 * kFusedTables];
  extern __shared__ char memory[];
  const FusedForwardArguments& a = arguments.forward;
  Shared& shared = *reinterpret_cast<Shared*>(AlignTiles(memory));
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, group = threadIdx.x / 128;
  const int g = lane / 4, c = lane % 4, b = blockIdx.z, h = blockIdx.y;
  const int block_row = blockIdx.x * kFusedTile * kGroups, first = block_row + group * kFusedTile + warp * 16;
  const int tiles = a.step.key_tiles[b];
  const float kept = kDropout ? static_cast<float>(a.dropout.threshold) / 65536 : 1;

  KeyLoader keys{{a.k, b, h, 0, a.shape.length}, {a.v, b, h, 0, a.shape.length}, TokensOf(a.step.keys, a.shape, b)};
  RowLoader<kFusedTile * kGroups, kBlock>(a.q, b, h, block_row, a.shape.length).Load(shared.q[0]);
  RowLoader<kFusedTile * kGroups, kBlock>(arguments.dout, b, h, block_row, a.shape.length).Load(shared.dout[0]);
  if constexpr (kBias) LoadTables(tables, a.step.tables, h);
  if (tiles > 0) keys.Load(shared, 0);
  CommitCopies();
  if (tiles > 1) keys.Load(shared, 1);
  CommitCopies();

  RowPart rows[1];
  RowRanges ranges;
  if constexpr (kBias) ranges = LoadRowParts<1>(rows, TokensOf(a.step.queries, a.shape, b), first, g);
  WaitForCopies<1>();
  FenceSharedForWgmma();
  __syncthreads();

  float lse[2], delta[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = first + g + 8 * r;
    // The four lanes of a row take a quarter of it each.
    float sum = 0;
    lse[r] = INFINITY;
    if (row < a.shape.length) {
      lse[r] = *RowValue(a.lse, a.shape, b, h, row);
      const int4* const out = reinterpret_cast<const int4*>(RowPointer(a.out, b, h, row));
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int chunk = 2 * c + i;
        sum += Dot8(out[chunk], *reinterpret_cast<const int4*>(shared.dout[group] +
                                                               ChunkOffset(warp * 16 + g + 8 * r, chunk)));
      }
    }
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    delta[r] = sum * kept;
    if (c == 0 && row < Padded(a.shape)) *RowValue(arguments.delta, a.shape, b, h, row) = delta[r];
  }

  const uint64_t q = TileDescriptor(shared.q[group]), dout = TileDescriptor(shared.dout[group]);
  Accumulator scores, gradients, dq = {};
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % kStages;
    const KeyColumns& columns = shared.columns[stage];
    float constant = 0;  // belongs to all of the scores
    if constexpr (kBias) {
      const TileClass kind = Classify(tables, ranges, columns.tokens.info);
      Biases(scores, tables, columns.tokens, 0, rows[0], kind, c);
      constant = kind.constant;
    }
    Pin(scores);
    Pin(gradients);
    WgmmaFence();
    MultiplyRows(gradients, dout, TileDescriptor(shared.v[stage]), false);
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
    Pin(gradients);
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
    const float down[2] = {lse[0] - constant * kScale, lse[1] - constant * kScale};
    uint32_t ds[4][4];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      if constexpr (kDropout) {
        KeepFlags keep;
        KeepForQueryRows(keep, draws[t], KeepEnd(a.dropout));
        Drop(gradients[t], keep);
      }
#pragma unroll
      for (int u = 0; u < 2; ++u) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float p = Exp2(scores[t][u][i] * kScale - down[i / 2]);
          scores[t][u][i] = p * (gradients[t][u][i] - delta[i / 2]);
        }
      }
      PackA(ds[t], scores[t][0], scores[t][1]);
    }
    Pin(dq);
    WgmmaFence();
    MultiplyColumns(dq, ds, TileDescriptor(shared.k[stage]));
    WgmmaCommit();
    WgmmaWait<0>();
    Pin(dq);
    if (tile + 1 < tiles) {
      __syncthreads();
      if (tile + 2 < tiles) keys.Load(shared, tile + 2);
      CommitCopies();
      WaitForCopies<1>();
      FenceSharedForWgmma();
      __syncthreads();
    }
  }

  WaitForCopies<0>();
  __syncthreads();
  const float scale = kRoot / kept;
  StoreRows(arguments.dq, b, h, first, a.shape.length, shared.q[group] + 16 * warp * kRowBytes,
            reinterpret_cast<const float(&)[8][4]>(dq), scale, scale, lane);
}

}  // namespace

const char* fused::HopperQueryGradients(const FusedBackwardArguments& arguments, cudaStream_t stream) {
  const auto launch = [&](auto bias, auto dropout) {
    return Launch(HopperBackwardQueryKernel<bias, dropout>, arguments.forward.shape, kGroups, sizeof(Shared) + 1024, stream,
                  arguments, kBlock);
  };
  return Dispatch(arguments.forward, launch);
}

}  // namespace attnfleet::trainer
