// The fused attention's forward pass with mma.sync: a block of 4 warps has 64 queries of one head and goes through the
// keys in tiles of 64, two in flight, with an online softmax.

#include "worker/trainer/cuda/fused_launch.cuh"

namespace attnfleet::trainer {
namespace {

using namespace fused;

constexpr int kBlocksPerSm = 3;

struct Shared {
  char q[kTileBytes];
  char k[2][kTileBytes];
  char v[2][kTileBytes];
  FusedTokens columns[2];
};

template <bool kBias, bool kDropout>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    AmpereForwardKernel(const __grid_constant__ FusedForwardArguments a) {
  __shared__ __align__(16) char tables[4 * kFusedTables];
  extern __shared__ __align__(128) char memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
  const int b = blockIdx.z, h = blockIdx.y, length = a.shape.length;
  const int block_row = blockIdx.x * kFusedTile, warp_row = warp * 16, first = block_row + warp_row;
  const int tiles = a.step.key_tiles[b];
  const uint32_t call = kDropout ? CallOf(a.dropout) : 0;

  RowLoader<kFusedTile, kThreads>(a.q, b, h, block_row, length).Load(shared.q);
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
  uint32_t q[4][4];
#pragma unroll
  for (int step = 0; step < 4; ++step) LoadA(q[step], shared.q, warp_row, step, lane);
  float out[8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % 2;
    AwaitTile(tile + 1 < tiles,
              [&] { keys.Load(shared.k[1 - stage], shared.v[1 - stage], shared.columns[1 - stage]); });
    const FusedTokens& columns = shared.columns[stage];
    float scores[4][2][4] = {};
    float constant = 0;  // belongs to all of the scores
    if constexpr (kBias) {
      if (tile % 32 == 0) classes.Load(queries, first, TokensOf(a.step.keys, a.shape, b), tile, tiles);
      const TileClass kind = classes.Of(tile);
      LookUp<1>(scores, tables, columns, rows, kind, c);
      constant = Constant(tables, columns, rows, kind);
    }
#pragma unroll
    for (int step = 0; step < 4; ++step) {
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        uint32_t k[4];
        LoadB(k, shared.k[stage], 16 * t, step, lane);
        MultiplyAdd(scores[t][0], q[step], k[0], k[1]);
        MultiplyAdd(scores[t][1], q[step], k[2], k[3]);
      }
    }
    if (columns.info.masked) AddMask(scores, columns, c);

    float down[2];  // what is subtracted from the scaled scores
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float most = fmaxf(top[r], RowMaximum(scores, r) + constant);
      const float shift = most == -INFINITY ? 0 : most * kScale;
      const float decay = Exp2(top[r] * kScale - shift);
      top[r] = most;
      down[r] = shift - constant * kScale;
      sum[r] *= decay;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        out[n][2 * r] *= decay;
        out[n][2 * r + 1] *= decay;
      }
    }
#pragma unroll
    for (int t = 0; t < 4; ++t) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        float& score = scores[t][i / 4][i % 4];
        score = Exp2(score * kScale - down[i % 4 / 2]);
        sum[i % 4 / 2] += score;
      }
      if constexpr (kDropout) {
        const Random128 draw =
            DrawForQueryRows(a.dropout, call, b * a.shape.heads + h, first, tile * kFusedTile + 16 * t, lane);
        DropForQueryRows(scores[t], draw, a.dropout);
      }
      uint32_t p[4];
      PackA(p, scores[t]);
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        uint32_t v[4];
        LoadBTransposed(v, shared.v[stage], 16 * t, pair, lane);
        MultiplyAdd(out[2 * pair], p, v[0], v[1]);
        MultiplyAdd(out[2 * pair + 1], p, v[2], v[3]);
      }
    }
    __syncthreads();
  }

  const float kept = kDropout ? KeptPart(a.dropout) : 1;
  float scale[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float total = QuadSum(sum[r]);
    scale[r] = total > 0 ? 1 / (total * kept) : 0;
    const int row = first + g + 8 * r;
    if (c == 0) {
      *RowValue(a.lse, a.shape, b, h, row) = total > 0 && row < length ? top[r] * kScale + log2f(total) : INFINITY;
    }
  }
  StoreRows(a.out, b, h, first, length, shared.q + warp_row * kRowBytes, out, scale[0], scale[1], lane);
}

}  // namespace

const char* fused::AmpereForward(const FusedForwardArguments& arguments, cudaStream_t stream) {
  return Dispatch(arguments, [&](auto bias, auto dropout) {
    return Launch(AmpereForwardKernel<bias, dropout>, arguments.shape, 1, sizeof(Shared), stream, arguments);
  });
}

}  // namespace attnfleet::trainer
