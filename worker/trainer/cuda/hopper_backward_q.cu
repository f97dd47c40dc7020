// dQ with wgmma: what ampere_backward_q.cu computes, with a warpgroup for each 64 queries.

#include "worker/trainer/cuda/fused_wgmma.cuh"

namespace attnfleet::trainer {
namespace {

using namespace fused;

#ifndef HQ_GROUPS
#define HQ_GROUPS 1
#define HQ_OCC 3
#endif
constexpr int kGroups = HQ_GROUPS;
constexpr int kBlock = kThreads * kGroups;
constexpr int kBlocksPerSm = HQ_OCC;

struct Shared {
  char q[kGroups][kTileBytes];
  char dout[kGroups][kTileBytes];
  char k[2][kTileBytes];
  char v[2][kTileBytes];
  FusedTokens columns[2];
};

// The next tile of keys.
struct KeyLoader {
  RowLoader<kFusedTile, kBlock> k, v;
  const FusedTokens* tokens;

  __device__ __forceinline__ void Load(Shared& shared, int tile) {
    const int stage = tile % 2;
    k.Load(shared.k[stage]);
    v.Load(shared.v[stage]);
    LoadTokens(shared.columns[stage], tokens[tile]);
  }
};

template <bool kBias, bool kDropout>
__global__ void __launch_bounds__(kBlock, kBlocksPerSm)
    HopperBackwardQueryKernel(const __grid_constant__ FusedBackwardArguments arguments) {
  __shared__ __align__(16) char tables[4 * kFusedTables];
  extern __shared__ char memory[];
  const FusedForwardArguments& a = arguments.forward;
  Shared& shared = *reinterpret_cast<Shared*>(AlignTiles(memory));
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, group = threadIdx.x / kThreads;
  const int g = lane / 4, c = lane % 4, b = blockIdx.z, h = blockIdx.y, length = a.shape.length;
  const int block_row = blockIdx.x * kFusedTile * kGroups, first = block_row + group * kFusedTile + warp * 16;
  const int tiles = a.step.key_tiles[b];
  const float kept = kDropout ? KeptPart(a.dropout) : 1;

  RowLoader<kFusedTile * kGroups, kBlock>(a.q, b, h, block_row, length).Load(shared.q[0]);
  RowLoader<kFusedTile * kGroups, kBlock>(arguments.dout, b, h, block_row, length).Load(shared.dout[0]);
  if constexpr (kBias) LoadTables(tables, a.step.tables, h);
  KeyLoader keys{{a.k, b, h, 0, length}, {a.v, b, h, 0, length}, TokensOf(a.step.keys, a.shape, b)};
  if (tiles > 0) keys.Load(shared, 0);
  CommitCopies();
  if (tiles > 1) keys.Load(shared, 1);
  CommitCopies();
  Rows rows;
  if constexpr (kBias) rows = LoadRowParts(TokensOf(a.step.queries, a.shape, b), first, g);
  WaitForCopies<1>();
  FenceSharedForWgmma();
  __syncthreads();

  float lse[2], delta[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = first + g + 8 * r;
    lse[r] = *RowValue(a.lse, a.shape, b, h, row);
    delta[r] = kept * RowProduct(a.out, b, h, row, length, shared.dout[group], warp * 16 + g + 8 * r, c);
    if (c == 0) *RowValue(arguments.delta, a.shape, b, h, row) = delta[r];
  }

  const uint64_t q = TileDescriptor(shared.q[group]), dout = TileDescriptor(shared.dout[group]);
  Accumulator scores, gradients, dq = {};
  float constant = 0;  // belongs to all of the scores
  if constexpr (kBias) {
    if (tiles > 0) constant = Biases(scores, tables, shared.columns[0], rows, c);
  }
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % 2;
    const FusedTokens& columns = shared.columns[stage];
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
    if (columns.info.masked) AddMask(scores, columns, c);
    const float down[2] = {lse[0] - constant * kScale, lse[1] - constant * kScale};
    uint32_t ds[4][4];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      if constexpr (kDropout) DropForQueryRows(gradients[t], draws[t], KeepEnd(a.dropout));
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int r = i % 4 / 2;
        float& score = scores[t][i / 4][i % 4];
        score = Exp2(score * kScale - down[r]) * (gradients[t][i / 4][i % 4] - delta[r]);
      }
      PackA(ds[t], scores[t]);
    }
    Pin(dq);
    WgmmaFence();
    MultiplyColumns(dq, ds, TileDescriptor(shared.k[stage]));
    WgmmaCommit();
    if (tile + 1 < tiles) {
      WaitForCopies<0>();
      FenceSharedForWgmma();
      __syncthreads();
      if constexpr (kBias) constant = Biases(scores, tables, shared.columns[1 - stage], rows, c);
    }
    WgmmaWait<0>();
    Pin(dq);
    if (tile + 2 < tiles) {
      __syncthreads();
      keys.Load(shared, tile + 2);
      CommitCopies();
    }
  }

  WaitForCopies<0>();
  __syncthreads();
  const float scale = kRoot / kept;
  StoreRows(arguments.dq, b, h, first, length, shared.q[group] + 16 * warp * kRowBytes,
            reinterpret_cast<const float(&)[8][4]>(dq), scale, scale, lane);
}

}  // namespace

const char* fused::HopperQueryGradients(const FusedBackwardArguments& arguments, cudaStream_t stream) {
  return Dispatch(arguments.forward, [&](auto bias, auto dropout) {
    return Launch(HopperBackwardQueryKernel<bias, dropout>, arguments.forward.shape, kGroups,
                  kAlignment + sizeof(Shared), stream, arguments);
  });
}

}  // namespace attnfleet::trainer
