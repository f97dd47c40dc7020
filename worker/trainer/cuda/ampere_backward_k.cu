// The fused attention's backward pass, second half: dK and dV. A block of 4 warps has 64 keys and goes through the
// queries in tiles of 64. Scores are transposed (rows are keys), so that probabilities and their gradients stay in
// registers, as the left operands of the products that follow.

#include "worker/trainer/cuda/fused_backward.cuh"

namespace attnfleet::trainer {
namespace {

using namespace fused;

struct Shared {
  char k[kTileBytes];
  char v[kTileBytes];
  char q[2][kTileBytes];
  char dout[2][kTileBytes];
  QueryColumns columns[2];
};

// The next tile of queries.
struct QueryLoader {
  RowLoader<kFusedTile, kThreads> q, dout;
  const FusedTokens* tokens;
  const float* lse;
  const float* delta;

  __device__ __forceinline__ void Load(Shared& shared, int tile) {
    const int stage = tile % 2;
    q.Load(shared.q[stage]);
    dout.Load(shared.dout[stage]);
    LoadTokens(shared.columns[stage].tokens, tokens[tile]);
    LoadRowValues(shared.columns[stage].lse, lse + tile * kFusedTile, 64);
    LoadRowValues(shared.columns[stage].delta, delta + tile * kFusedTile, 96);
  }
};

template <bool kBias, bool kDropout>
__global__ void __launch_bounds__(kThreads, ATTNFLEET_OCC_K) AmpereBackwardKeyKernel(const __grid_constant__ FusedBackwardArguments arguments) {
  __shared__ __align__(16) char tables[4 * kFusedTables];
  extern __shared__ __align__(128) char memory[];
  const FusedForwardArguments& a = arguments.forward;
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
  const int b = blockIdx.z, h = blockIdx.y, key_tile = blockIdx.x;
  const int block_row = key_tile * kFusedTile, warp_row = warp * 16, first = block_row + warp_row;
  const bool padding = key_tile >= a.step.key_tiles[b];  // all of it
  const int tiles = padding ? 0 : (a.shape.length + kFusedTile - 1) / kFusedTile;
  const float kept = kDropout ? static_cast<float>(a.dropout.threshold) / 65536 : 1;

  QueryLoader queries{{a.q, b, h, 0, a.shape.length},
                      {arguments.dout, b, h, 0, a.shape.length},
                      TokensOf(a.step.queries, a.shape, b),
                      RowValue(a.lse, a.shape, b, h, 0),
                      RowValue(arguments.delta, a.shape, b, h, 0)};
  const FusedTokens* const keys = TokensOf(a.step.keys, a.shape, b);
  RowLoader<kFusedTile, kThreads>(a.k, b, h, block_row, a.shape.length).Load(shared.k);
  RowLoader<kFusedTile, kThreads>(a.v, b, h, block_row, a.shape.length).Load(shared.v);
  if constexpr (kBias) LoadTables(tables, a.step.tables, h);
  if (!padding) queries.Load(shared, 0);
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

  uint32_t k[4][4], v[4][4];
  float dk[8][4] = {}, dv[8][4] = {};
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % 2;
    if (tile + 1 < tiles) queries.Load(shared, tile + 1);
    CommitCopies();
    WaitForCopies<1>();
    __syncthreads();
    if (tile == 0) {
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        LoadA(k[step], shared.k, warp_row, step, lane);
        LoadA(v[step], shared.v, warp_row, step, lane);
      }
    }
    const QueryColumns& columns = shared.columns[stage];
    TileClass kind{};
    if constexpr (kBias) kind = Classify(tables, ranges, columns.tokens.info);
    const float constant = kind.constant * kScale;

#pragma unroll
    for (int t = 0; t < 4; ++t) {
      float scores[1][2][4], gradients[2][4] = {};
      if constexpr (kBias) {
        Biases(scores, tables, columns.tokens, 16 * t, rows[0], kind, c);
      } else {
        Zero(scores[0]);
      }
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
      KeepFlags keep;
      if constexpr (kDropout) {
        const Random128 draw =
            DrawForKeyRows(a.dropout, b * a.shape.heads + h, tile * kFusedTile + 16 * t, first, lane);
        KeepForKeyRows(keep, draw, KeepEnd(a.dropout));
      }
      if (masked) {
#pragma unroll
        for (int u = 0; u < 2; ++u) {
          for (int i = 0; i < 4; ++i) scores[0][u][i] += mask[i / 2];
        }
      }
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        const int column = 16 * t + 8 * u + 2 * c;
        float2 lse = *reinterpret_cast<const float2*>(&columns.lse[column]);
        if constexpr (kBias) lse = {lse.x - constant, lse.y - constant};
        const float2 delta = *reinterpret_cast<const float2*>(&columns.delta[column]);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float p = Exp2(scores[0][u][i] * kScale - (i % 2 == 0 ? lse.x : lse.y));
          const bool kept_one = !kDropout || keep[u][i];
          scores[0][u][i] = kept_one ? p : 0;
          gradients[u][i] = p * ((kept_one ? gradients[u][i] : 0) - (i % 2 == 0 ? delta.x : delta.y));
        }
      }
      uint32_t p[4], ds[4];
      PackA(p, scores[0][0], scores[0][1]);
      PackA(ds, gradients[0], gradients[1]);
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

  WaitForCopies<0>();
  __syncthreads();
  char* const scratch = shared.k + warp_row * kRowBytes;
  StoreRows(arguments.dk, b, h, first, a.shape.length, scratch, dk, kRoot / kept, kRoot / kept, lane);
  StoreRows(arguments.dv, b, h, first, a.shape.length, scratch, dv, 1 / kept, 1 / kept, lane);
}

}  // namespace

const char* fused::AmpereKeyGradients(const FusedBackwardArguments& arguments, cudaStream_t stream) {
  const auto launch = [&](auto bias, auto dropout) {
    return Launch(AmpereBackwardKeyKernel<bias, dropout>, arguments.forward.shape, 1, sizeof(Shared), stream, arguments);
  };
  return Dispatch(arguments.forward, launch);
}

}  // namespace attnfleet::trainer
