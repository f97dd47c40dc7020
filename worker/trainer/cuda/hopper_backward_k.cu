// dK and dV with wgmma: what ampere_backward_k.cu computes, with a warpgroup for each 64 keys.

#include "worker/trainer/cuda/fused_wgmma.cuh"

namespace attnfleet::trainer {
namespace {

using namespace fused;

constexpr int kBlocksPerSm = 3;

struct Shared {
  char k[kTileBytes];
  char v[kTileBytes];
  char q[2][kTileBytes];
  char dout[2][kTileBytes];
  QueryColumns columns[2];
};

template <bool kBias, bool kDropout>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    HopperBackwardKeyKernel(const __grid_constant__ FusedBackwardArguments arguments) {
  __shared__ __align__(16) char tables[4 * kFusedTables];
  extern __shared__ char memory[];
  const FusedForwardArguments& a = arguments.forward;
  Shared& shared = *reinterpret_cast<Shared*>(AlignTiles(memory));
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
  const int b = blockIdx.z, h = blockIdx.y, length = a.shape.length;
  const int block_row = blockIdx.x * kFusedTile, first = block_row + warp * 16;
  const bool padding = static_cast<int>(blockIdx.x) >= a.step.key_tiles[b];  // all of the block
  const int tiles = padding ? 0 : (length + kFusedTile - 1) / kFusedTile;
  const float kept = kDropout ? KeptPart(a.dropout) : 1;
  const uint32_t call = kDropout ? CallOf(a.dropout) : 0;

  RowLoader<kFusedTile, kThreads>(a.k, b, h, block_row, length).Load(shared.k);
  RowLoader<kFusedTile, kThreads>(a.v, b, h, block_row, length).Load(shared.v);
  if constexpr (kBias) LoadTables(tables, a.step.tables, h);
  QueryLoader queries(arguments, b, h);
  if (tiles > 0) queries.Load(shared.q[0], shared.dout[0], shared.columns[0]);
  CommitCopies();
  if (tiles > 1) queries.Load(shared.q[1], shared.dout[1], shared.columns[1]);
  CommitCopies();
  const FusedTokens* const keys = TokensOf(a.step.keys, a.shape, b);
  Rows rows;
  TileClasses classes;
  if constexpr (kBias) {
    rows = LoadRowParts(keys, first, g);
    if (tiles > 0) classes.Load(keys, first, TokensOf(a.step.queries, a.shape, b), 0, tiles);
  }
  const RowMask mask = LoadRowMask(keys, first, g);
  WaitForCopies<1>();
  FenceSharedForWgmma();
  __syncthreads();

  const uint64_t k = TileDescriptor(shared.k), v = TileDescriptor(shared.v);
  Accumulator scores, gradients, dk = {}, dv = {};
  float constant = 0;  // belongs to all of the scores
  if constexpr (kBias) {
    if (tiles > 0) {
      LookUp<-1>(scores, tables, shared.columns[0].tokens, rows, classes.Of(0), c);
      constant = Constant(tables, shared.columns[0].tokens, rows, classes.Of(0));
    }
  }
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % 2;
    const QueryColumns& columns = shared.columns[stage];
    Pin(scores);
    Pin(gradients);
    WgmmaFence();
    MultiplyRows(gradients, v, TileDescriptor(shared.dout[stage]), false);
    MultiplyRows(scores, k, TileDescriptor(shared.q[stage]), kBias);
    WgmmaCommit();
    Random128 draws[4] = {};
    if constexpr (kDropout) {
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        draws[t] = DrawForKeyRows(a.dropout, call, b * a.shape.heads + h, tile * kFusedTile + 16 * t, first, lane);
      }
    }
    WgmmaWait<0>();
    Pin(scores);
    Pin(gradients);
    if (mask.any) AddMask(scores, mask);
    uint32_t p[4][4], ds[4][4];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      KeyRowGradients<kDropout>(scores[t], gradients[t], columns, 16 * t, constant, draws[t], a.dropout, c);
      PackA(p[t], scores[t]);
      PackA(ds[t], gradients[t]);
    }
    Pin(dv);
    Pin(dk);
    WgmmaFence();
    MultiplyColumns(dv, p, TileDescriptor(shared.dout[stage]));
    MultiplyColumns(dk, ds, TileDescriptor(shared.q[stage]));
    WgmmaCommit();
    if (tile + 1 < tiles) {
      WaitForCopies<0>();
      FenceSharedForWgmma();
      __syncthreads();
      if constexpr (kBias) {
        if ((tile + 1) % 32 == 0) {
          const int sequence = Opaque(b);
          classes.Load(TokensOf(a.step.keys, a.shape, sequence), first, TokensOf(a.step.queries, a.shape, sequence),
                       tile + 1, tiles);
        }
        const FusedTokens& next = shared.columns[1 - stage].tokens;
        const TileClass kind = classes.Of(tile + 1);
        LookUp<-1>(scores, tables, next, rows, kind, c);
        constant = Constant(tables, next, rows, kind);
      }
    }
    WgmmaWait<0>();
    Pin(dv);
    Pin(dk);
    if (tile + 2 < tiles) {
      __syncthreads();
      queries.Load(shared.q[stage], shared.dout[stage], shared.columns[stage]);
      CommitCopies();
    }
  }

  WaitForCopies<0>();
  __syncthreads();
  char* const scratch = shared.k + 16 * warp * kRowBytes;
  StoreRows(arguments.dk, b, h, first, length, scratch, reinterpret_cast<const float(&)[8][4]>(dk), kRoot / kept,
            kRoot / kept, lane);
  StoreRows(arguments.dv, b, h, first, length, scratch, reinterpret_cast<const float(&)[8][4]>(dv), 1 / kept, 1 / kept,
            lane);
}

}  // namespace

const char* fused::HopperKeyGradients(const FusedBackwardArguments& arguments, cudaStream_t stream) {
  return Dispatch(arguments.forward, [&](auto bias, auto dropout) {
    return Launch(HopperBackwardKeyKernel<bias, dropout>, arguments.forward.shape, 1, kAlignment + sizeof(Shared),
                  stream, arguments);
  });
}

}  // namespace attnfleet::trainer
