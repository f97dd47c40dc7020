// The fused attention's backward pass with mma.sync, second half: dK and dV. A block of 4 warps has 64 keys and goes
// through the queries in tiles of 64. Scores are transposed (rows are keys), so that probabilities and their gradients
// stay in registers, as the left operands of the products that follow.

#include "worker/trainer/cuda/fused_launch.cuh"

namespace attnfleet::trainer {
namespace {

using namespace fused;

constexpr int kBlocksPerSm = 3;

struct Shared {
  char q[2][kTileBytes];  // K is in the second one, and V in that of dout, until it is in registers
  char dout[2][kTileBytes];
  QueryColumns columns[2];
};

template <bool kBias, bool kDropout>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    AmpereBackwardKeyKernel(const __grid_constant__ FusedBackwardArguments arguments) {
  __shared__ __align__(16) char tables[4 * kFusedTables];
  extern __shared__ __align__(128) char memory[];
  const FusedForwardArguments& a = arguments.forward;
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
  const int b = blockIdx.z, h = blockIdx.y, length = a.shape.length;
  const int block_row = blockIdx.x * kFusedTile, warp_row = warp * 16, first = block_row + warp_row;
  const bool padding = static_cast<int>(blockIdx.x) >= a.step.key_tiles[b];  // all of the block
  const int tiles = padding ? 0 : (length + kFusedTile - 1) / kFusedTile;
  const float kept = kDropout ? KeptPart(a.dropout) : 1;
  const uint32_t call = kDropout ? CallOf(a.dropout) : 0;

  RowLoader<kFusedTile, kThreads>(a.k, b, h, block_row, length).Load(shared.q[1]);
  RowLoader<kFusedTile, kThreads>(a.v, b, h, block_row, length).Load(shared.dout[1]);
  if constexpr (kBias) LoadTables(tables, a.step.tables, h);
  QueryLoader queries(arguments, b, h);
  if (tiles > 0) queries.Load(shared.q[0], shared.dout[0], shared.columns[0]);
  CommitCopies();
  const FusedTokens* const keys = TokensOf(a.step.keys, a.shape, b);
  Rows rows;
  if constexpr (kBias) rows = LoadRowParts(keys, first, g);
  TileClasses classes;
  const RowMask mask = LoadRowMask(keys, first, g);
  WaitForCopies<0>();
  __syncthreads();
  uint32_t k[4][4], v[4][4];
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    LoadA(k[step], shared.q[1], warp_row, step, lane);
    LoadA(v[step], shared.dout[1], warp_row, step, lane);
  }
  __syncthreads();

  float dk[8][4] = {}, dv[8][4] = {};
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % 2;
    AwaitTile(tile + 1 < tiles,
              [&] { queries.Load(shared.q[1 - stage], shared.dout[1 - stage], shared.columns[1 - stage]); });
    const QueryColumns& columns = shared.columns[stage];
    TileClass kind{};
    float constant = 0;  // belongs to all of the scores
    if constexpr (kBias) {
      if (tile % 32 == 0) classes.Load(keys, first, TokensOf(a.step.queries, a.shape, b), tile, tiles);
      kind = classes.Of(tile);
      constant = Constant(tables, columns.tokens, rows, kind);
    }
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      float scores[1][2][4] = {}, gradients[2][4] = {};
      if constexpr (kBias) LookUpBlock(scores[0], tables, columns.tokens, 16 * t, rows, kind, c);
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        uint32_t q[4], dout[4];
        LoadB(q, shared.q[stage], 16 * t, step, lane);
        LoadB(dout, shared.dout[stage], 16 * t, step, lane);
        MultiplyAdd(scores[0][0], k[step], q[0], q[1]);
        MultiplyAdd(scores[0][1], k[step], q[2], q[3]);
        MultiplyAdd(gradients[0], v[step], dout[0], dout[1]);
        MultiplyAdd(gradients[1], v[step], dout[2], dout[3]);
      }
      if (mask.any) AddMask(scores, mask);
      Random128 draw{};
      if constexpr (kDropout) {
        draw = DrawForKeyRows(a.dropout, call, b * a.shape.heads + h, tile * kFusedTile + 16 * t, first, lane);
      }
      KeyRowGradients<kDropout>(scores[0], gradients, columns, 16 * t, constant, draw, a.dropout, c);
      uint32_t p[4], ds[4];
      PackA(p, scores[0]);
      PackA(ds, gradients);
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        uint32_t q[4], dout[4];
        LoadBTransposed(dout, shared.dout[stage], 16 * t, pair, lane);
        LoadBTransposed(q, shared.q[stage], 16 * t, pair, lane);
        MultiplyAdd(dv[2 * pair], p, dout[0], dout[1]);
        MultiplyAdd(dv[2 * pair + 1], p, dout[2], dout[3]);
        MultiplyAdd(dk[2 * pair], ds, q[0], q[1]);
        MultiplyAdd(dk[2 * pair + 1], ds, q[2], q[3]);
      }
    }
    __syncthreads();
  }

  char* const scratch = shared.q[0] + warp_row * kRowBytes;
  StoreRows(arguments.dk, b, h, first, length, scratch, dk, kRoot / kept, kRoot / kept, lane);
  StoreRows(arguments.dv, b, h, first, length, scratch, dv, 1 / kept, 1 / kept, lane);
}

}  // namespace

const char* fused::AmpereKeyGradients(const FusedBackwardArguments& arguments, cudaStream_t stream) {
  return Dispatch(arguments.forward, [&](auto bias, auto dropout) {
    return Launch(AmpereBackwardKeyKernel<bias, dropout>, arguments.forward.shape, 1, sizeof(Shared), stream,
                  arguments);
  });
}

}  // namespace attnfleet::trainer
