// dQ with wgmma: what ampere_backward_q.cu computes, with a warpgroup for each 64 queries.

#include "worker/trainer/cuda/fused_wgmma.cuh"

namespace attnfleet::trainer {
namespace {

using namespace fused;

constexpr int kBlocksPerSm = 3;

struct Shared {
  char q[kTileBytes];
  char dout[kTileBytes];
  char k[2][kTileBytes];
  char v[2][kTileBytes];
  FusedTokens columns[2];
};

template <bool kBias, bool kDropout>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    HopperBackwardQueryKernel(const __grid_constant__ FusedBackwardArguments arguments) {
  __shared__ __align__(16) char tables[4 * kFusedTables];
  extern __shared__ char memory[];
  const FusedForwardArguments& a = arguments.forward;
  Shared& shared = *reinterpret_cast<Shared*>(AlignTiles(memory));
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
  const int b = blockIdx.z, h = blockIdx.y, length = a.shape.length;
  const int block_row = blockIdx.x * kFusedTile, first = block_row + warp * 16;
  const int tiles = a.step.key_tiles[b];
  const float kept = kDropout ? KeptPart(a.dropout) : 1;
  const uint32_t call = kDropout ? CallOf(a.dropout) : 0;

  RowLoader<kFusedTile, kThreads>(a.q, b, h, block_row, length).Load(shared.q);
  RowLoader<kFusedTile, kThreads>(arguments.dout, b, h, block_row, length).Load(shared.dout);
  if constexpr (kBias) LoadTables(tables, a.step.tables, h);
  KeyLoader keys(a, b, h);
  if (tiles > 0) keys.Load(shared.k[0], shared.v[0], shared.columns[0]);
  CommitCopies();
  if (tiles > 1) keys.Load(shared.k[1], shared.v[1], shared.columns[1]);
  CommitCopies();
  Rows rows;
  TileClasses classes;
  if constexpr (kBias) {
    rows = LoadRowParts(TokensOf(a.step.queries, a.shape, b), first, g);
    if (tiles > 0)
      classes.Load(TokensOf(a.step.queries, a.shape, b), first, TokensOf(a.step.keys, a.shape, b), 0, tiles);
  }
  WaitForCopies<1>();
  FenceSharedForWgmma();
  __syncthreads();

  float lse[2], delta[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = first + g + 8 * r;
    lse[r] = *RowValue(a.lse, a.shape, b, h, row);
    delta[r] = kept * RowProduct(a.out, b, h, row, length, shared.dout, warp * 16 + g + 8 * r, c);
    if (c == 0) *RowValue(arguments.delta, a.shape, b, h, row) = delta[r];
  }

  const uint64_t q = TileDescriptor(shared.q), dout = TileDescriptor(shared.dout);
  Accumulator scores, gradients, dq = {};
  float constant = 0;  // belongs to all of the scores
  if constexpr (kBias) {
    if (tiles > 0) {
      LookUp<1>(scores, tables, shared.columns[0], rows, classes.Of(0), c);
      constant = Constant(tables, shared.columns[0], rows, classes.Of(0));
    }
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
    Draw<kDropout>(draws, a, call, b, h, first, tile, lane);
    WgmmaWait<0>();
    Pin(scores);
    Pin(gradients);
    if (columns.info.masked) AddMask(scores, columns, c);
    const float down[2] = {lse[0] - constant * kScale, lse[1] - constant * kScale};
    uint32_t ds[4][4];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      if constexpr (kDropout) DropForQueryRows(gradients[t], draws[t], a.dropout);
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
      if constexpr (kBias) {
        if ((tile + 1) % 32 == 0) {
          const int sequence = Opaque(b);
          classes.Load(TokensOf(a.step.queries, a.shape, sequence), first, TokensOf(a.step.keys, a.shape, sequence),
                       tile + 1, tiles);
        }
        const TileClass kind = classes.Of(tile + 1);
        LookUp<1>(scores, tables, shared.columns[1 - stage], rows, kind, c);
        constant = Constant(tables, shared.columns[1 - stage], rows, kind);
      }
    }
    WgmmaWait<0>();
    Pin(dq);
    if (tile + 2 < tiles) {
      __syncthreads();
      keys.Load(shared.k[stage], shared.v[stage], shared.columns[stage]);
      CommitCopies();
    }
  }

  WaitForCopies<0>();
  __syncthreads();
  const float scale = kRoot / kept;
  StoreRows(arguments.dq, b, h, first, length, shared.q + 16 * warp * kRowBytes,
            reinterpret_cast<const float(&)[8][4]>(dq), scale, scale, lane);
}

}  // namespace

const char* fused::HopperQueryGradients(const FusedBackwardArguments& arguments, cudaStream_t stream) {
  return Dispatch(arguments.forward, [&](auto bias, auto dropout) {
    return Launch(HopperBackwardQueryKernel<bias, dropout>, arguments.forward.shape, 1, kAlignment + sizeof(Shared),
                  stream, arguments);
  });
}

}  // namespace attnfleet::trainer
