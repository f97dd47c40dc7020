// The forward pass with wgmma: a warpgroup has 64 queries, a block two of them, and goes through the keys in tiles of
// 64, of which three are in shared memory. While the tensor cores add the products with V, the next tile's biases are
// looked up.

#include "worker/trainer/cuda/fused_wgmma.cuh"

namespace attnfleet::trainer {
namespace {

using namespace fused;

constexpr int kGroups = 2;
constexpr int kBlock = kThreads * kGroups;
constexpr int kBlocksPerSm = 2;
constexpr int kStages = 3;
struct Shared {
  char q[kGroups][kTileBytes];
  char k[kStages][kTileBytes];
  char v[kStages][kTileBytes];
  FusedTokens columns[kStages];
};

template <bool kBias, bool kDropout>
__global__ void __launch_bounds__(kBlock, kBlocksPerSm)
    HopperForwardKernel(const __grid_constant__ FusedForwardArguments a) {
  __shared__ __align__(16) char tables[4 * kFusedTables];
  extern __shared__ char memory[];
  Shared& shared = *reinterpret_cast<Shared*>(AlignTiles(memory));
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, group = threadIdx.x / kThreads;
  const int g = lane / 4, c = lane % 4, b = blockIdx.z, h = blockIdx.y, length = a.shape.length;
  const int block_row = blockIdx.x * kFusedTile * kGroups, first = block_row + group * kFusedTile + warp * 16;
  const int tiles = a.step.key_tiles[b];
  const uint32_t call = kDropout ? CallOf(a.dropout) : 0;

  RowLoader<kFusedTile * kGroups, kBlock>(a.q, b, h, block_row, length).Load(shared.q[0]);
  if constexpr (kBias) LoadTables(tables, a.step.tables, h);
  KeyLoader<kBlock> keys(a, b, h);
  if (tiles > 0) keys.Load(shared.k[0], shared.v[0], shared.columns[0]);
  CommitCopies();
  if (tiles > 1) keys.Load(shared.k[1], shared.v[1], shared.columns[1]);
  CommitCopies();
  Rows rows;
  if constexpr (kBias) rows = LoadRowParts(TokensOf(a.step.queries, a.shape, b), first, g);
  WaitForCopies<1>();
  FenceSharedForWgmma();
  __syncthreads();

  const uint64_t q = TileDescriptor(shared.q[group]);
  Accumulator scores, out = {};
  float constant = 0;  // belongs to all of the scores
  if constexpr (kBias) {
    if (tiles > 0) constant = Biases(scores, tables, shared.columns[0], rows, c);
  }
  float top[2] = {-INFINITY, -INFINITY}, shift[2] = {0, 0}, sum[2] = {0, 0};

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
        draws[t] = DrawForQueryRows(a.dropout, call, b * a.shape.heads + h, first, tile * kFusedTile + 16 * t, lane);
      }
    }
    WgmmaWait<0>();
    Pin(scores);
    if (shared.columns[stage].info.masked) AddMask(scores, shared.columns[stage], c);

    float most[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) most[r] = fmaxf(top[r], RowMaximum(scores, r) + constant);
    // Most tiles need not touch the sums.
    if (__any_sync(~0u, most[0] > top[0] || most[1] > top[1])) {
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
      for (int i = 0; i < 8; ++i) {
        float& score = scores[t][i / 4][i % 4];
        score = Exp2(score * kScale - down[i % 4 / 2]);
        sum[i % 4 / 2] += score;
      }
      if constexpr (kDropout) DropForQueryRows(scores[t], draws[t], KeepEnd(a.dropout));
      PackA(p[t], scores[t]);
    }

    Pin(out);
    WgmmaFence();
    MultiplyColumns(out, p, TileDescriptor(shared.v[stage]));
    WgmmaCommit();
    if (tile + 1 < tiles) {
      // The next tile is here, and both warpgroups are done with the one before this.
      WaitForCopies<0>();
      FenceSharedForWgmma();
      __syncthreads();
      if (tile + 2 < tiles)
        keys.Load(shared.k[(tile + 2) % kStages], shared.v[(tile + 2) % kStages], shared.columns[(tile + 2) % kStages]);
      CommitCopies();
      if constexpr (kBias) constant = Biases(scores, tables, shared.columns[(tile + 1) % kStages], rows, c);
    }
    WgmmaWait<0>();
    Pin(out);
  }

  WaitForCopies<0>();
  __syncthreads();
  const float kept = kDropout ? KeptPart(a.dropout) : 1;
  float scale[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float total = QuadSum(sum[r]);
    scale[r] = total > 0 ? 1 / (total * kept) : 0;
    const int row = first + g + 8 * r;
    if (c == 0) *RowValue(a.lse, a.shape, b, h, row) = total > 0 && row < length ? shift[r] + log2f(total) : INFINITY;
  }
  StoreRows(a.out, b, h, first, length, shared.q[group] + 16 * warp * kRowBytes,
            reinterpret_cast<const float(&)[8][4]>(out), scale[0], scale[1], lane);
}

}  // namespace

const char* fused::HopperForward(const FusedForwardArguments& arguments, cudaStream_t stream) {
  return Dispatch(arguments, [&](auto bias, auto dropout) {
    return Launch(HopperForwardKernel<bias, dropout>, arguments.shape, kGroups, kAlignment + sizeof(Shared), stream,
                  arguments);
  });
}

}  // namespace attnfleet::trainer
