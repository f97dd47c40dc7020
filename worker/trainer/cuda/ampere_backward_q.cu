// The fused attention's backward pass with mma.sync, first half: dQ, and the product of dout and out of each row, which
// the other half reads. As in the forward pass a block has 64 queries and goes through the keys, so nothing is summed
// across blocks.

#include "worker/trainer/cuda/fused_launch.cuh"

namespace attnfleet::trainer {
namespace {

using namespace fused;

constexpr int kBlocksPerSm = 3;

struct Shared {
  char k[2][kTileBytes];  // Q is in the second one, and dout in that of V, until it is in registers
  char v[2][kTileBytes];
  FusedTokens columns[2];
};

template <bool kBias, bool kDropout>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    AmpereBackwardQueryKernel(const __grid_constant__ FusedBackwardArguments arguments) {
  __shared__ __align__(16) char tables[4 * kFusedTables];
  extern __shared__ __align__(128) char memory[];
  const FusedForwardArguments& a = arguments.forward;
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
  const int b = blockIdx.z, h = blockIdx.y, length = a.shape.length;
  const int block_row = blockIdx.x * kFusedTile, warp_row = warp * 16, first = block_row + warp_row;
  const int tiles = a.step.key_tiles[b];
  const float kept = kDropout ? KeptPart(a.dropout) : 1;
  const uint32_t call = kDropout ? CallOf(a.dropout) : 0;

  RowLoader<kFusedTile, kThreads>(a.q, b, h, block_row, length).Load(shared.k[1]);
  RowLoader<kFusedTile, kThreads>(arguments.dout, b, h, block_row, length).Load(shared.v[1]);
  if constexpr (kBias) LoadTables(tables, a.step.tables, h);
  KeyLoader keys(a, b, h);
  if (tiles > 0) keys.Load(shared.k[0], shared.v[0], shared.columns[0]);
  CommitCopies();
  const FusedTokens* const queries = TokensOf(a.step.queries, a.shape, b);
  Rows rows;
  if constexpr (kBias) rows = LoadRowParts(queries, first, g);
  TileClasses classes;
  WaitForCopies<0>();
  __syncthreads();

  uint32_t q[4][4], dout[4][4];
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    LoadA(q[step], shared.k[1], warp_row, step, lane);
    LoadA(dout[step], shared.v[1], warp_row, step, lane);
  }
  float lse[2], delta[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = first + g + 8 * r;
    lse[r] = *RowValue(a.lse, a.shape, b, h, row);
    delta[r] = kept * RowProduct(a.out, b, h, row, length, shared.v[1], warp_row + g + 8 * r, c);
    if (c == 0) *RowValue(arguments.delta, a.shape, b, h, row) = delta[r];
  }
  __syncthreads();

  float dq[8][4] = {};
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % 2;
    AwaitTile(tile + 1 < tiles,
              [&] { keys.Load(shared.k[1 - stage], shared.v[1 - stage], shared.columns[1 - stage]); });
    const FusedTokens& columns = shared.columns[stage];
    TileClass kind{};
    float constant = 0;  // belongs to all of the scores
    if constexpr (kBias) {
      if (tile % 32 == 0) classes.Load(queries, first, TokensOf(a.step.keys, a.shape, b), tile, tiles);
      kind = classes.Of(tile);
      constant = Constant(tables, columns, rows, kind);
    }
    const float down[2] = {lse[0] - constant * kScale, lse[1] - constant * kScale};
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      float scores[1][2][4] = {}, gradients[2][4] = {};
      if constexpr (kBias) LookUpBlock(scores[0], tables, columns, 16 * t, rows, kind, c);
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        uint32_t k[4], v[4];
        LoadB(k, shared.k[stage], 16 * t, step, lane);
        LoadB(v, shared.v[stage], 16 * t, step, lane);
        MultiplyAdd(scores[0][0], q[step], k[0], k[1]);
        MultiplyAdd(scores[0][1], q[step], k[2], k[3]);
        MultiplyAdd(gradients[0], dout[step], v[0], v[1]);
        MultiplyAdd(gradients[1], dout[step], v[2], v[3]);
      }
      if (columns.info.masked) AddMask(scores, columns, c, 16 * t);
      if constexpr (kDropout) {
        const Random128 draw =
            DrawForQueryRows(a.dropout, call, b * a.shape.heads + h, first, tile * kFusedTile + 16 * t, lane);
        DropForQueryRows(gradients, draw, a.dropout);
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int r = i % 4 / 2;
        float& score = scores[0][i / 4][i % 4];
        score = Exp2(score * kScale - down[r]) * (gradients[i / 4][i % 4] - delta[r]);
      }
      uint32_t ds[4];
      PackA(ds, scores[0]);
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        uint32_t k[4];
        LoadBTransposed(k, shared.k[stage], 16 * t, pair, lane);
        MultiplyAdd(dq[2 * pair], ds, k[0], k[1]);
        MultiplyAdd(dq[2 * pair + 1], ds, k[2], k[3]);
      }
    }
    __syncthreads();
  }

  const float scale = kRoot / kept;
  StoreRows(arguments.dq, b, h, first, length, shared.k[0] + warp_row * kRowBytes, dq, scale, scale, lane);
}

}  // namespace

const char* fused::AmpereQueryGradients(const FusedBackwardArguments& arguments, cudaStream_t stream) {
  return Dispatch(arguments.forward, [&](auto bias, auto dropout) {
    return Launch(AmpereBackwardQueryKernel<bias, dropout>, arguments.forward.shape, 1, sizeof(Shared), stream,
                  arguments);
  });
}

}  // namespace attnfleet::trainer
