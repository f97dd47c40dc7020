// The forward pass with wgmma: a warpgroup has 64 queries and goes through the keys in tiles of 64. Two kernels, since
// what is best differs. Without biases a block has two warpgroups, which share the keys. With biases it has one, so
// that the look-ups of one are not in step with those of another, and these are made between the exponentials, which
// wait for other units of the SM.

#include "worker/trainer/cuda/fused_wgmma.cuh"

namespace attnfleet::trainer {
namespace {

using namespace fused;

// Softmax of the rows g and g + 8, one tile after the other.
class Softmax {
 public:
  // Has the maximum follow a tile's scores, to each of which `constant` belongs, and scales the sums of `out` to it.
  __device__ __forceinline__ void Begin(const Accumulator& scores, float constant, Accumulator& out) {
    float most[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) most[r] = fmaxf(top_[r], RowMaximum(scores, r) + constant);
    // Most tiles need not touch the sums.
    if (__any_sync(~0u, most[0] > top_[0] || most[1] > top_[1])) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (most[r] == -INFINITY) continue;
        const float decay = Exp2((top_[r] - most[r]) * kScale);
        top_[r] = most[r];
        shift_[r] = most[r] * kScale;
        sum_[r] *= decay;
#pragma unroll
        for (int n = 0; n < 8; ++n) {
          out[n / 2][n % 2][2 * r] *= decay;
          out[n / 2][n % 2][2 * r + 1] *= decay;
        }
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) down_[r] = shift_[r] - constant * kScale;
  }

  // Makes exponentials of 16 columns' scores.
  __device__ __forceinline__ void Add(float (&scores)[2][4]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float& score = scores[i / 4][i % 4];
      score = Exp2(score * kScale - down_[i % 4 / 2]);
      sum_[i % 4 / 2] += score;
    }
  }

  // Writes out and lse of 16 rows.
  __device__ __forceinline__ void Finish(const FusedForwardArguments& a, int b, int h, int first, float kept,
                                         Accumulator& out, char* scratch, int lane) const {
    const int g = lane / 4, c = lane % 4, length = a.shape.length;
    float scale[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float total = QuadSum(sum_[r]);
      scale[r] = total > 0 ? 1 / (total * kept) : 0;
      const int row = first + g + 8 * r;
      if (c == 0)
        *RowValue(a.lse, a.shape, b, h, row) = total > 0 && row < length ? shift_[r] + log2f(total) : INFINITY;
    }
    StoreRows(a.out, b, h, first, length, scratch, reinterpret_cast<const float(&)[8][4]>(out), scale[0], scale[1],
              lane);
  }

 private:
  float top_[2] = {-INFINITY, -INFINITY}, shift_[2] = {0, 0}, sum_[2] = {0, 0}, down_[2];
};

// --- Without biases.
constexpr int kGroups = 2;
constexpr int kBlock = kThreads * kGroups;
constexpr int kStages = 3;

struct Shared {
  char q[kGroups][kTileBytes];
  char k[kStages][kTileBytes];
  char v[kStages][kTileBytes];
  FusedTokens columns[kStages];
};

template <bool kDropout>
__global__ void __launch_bounds__(kBlock, 2) HopperForwardKernel(const __grid_constant__ FusedForwardArguments a) {
  extern __shared__ char memory[];
  Shared& shared = *reinterpret_cast<Shared*>(AlignTiles(memory));
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, group = threadIdx.x / kThreads, c = lane % 4;
  const int b = blockIdx.z, h = blockIdx.y, length = a.shape.length;
  const int block_row = blockIdx.x * kFusedTile * kGroups, first = block_row + group * kFusedTile + warp * 16;
  const int tiles = a.step.key_tiles[b];
  const uint32_t call = kDropout ? CallOf(a.dropout) : 0;

  RowLoader<kFusedTile * kGroups, kBlock>(a.q, b, h, block_row, length).Load(shared.q[0]);
  KeyLoader<kBlock> keys(a, b, h);
  if (tiles > 0) keys.Load(shared.k[0], shared.v[0], shared.columns[0]);
  CommitCopies();
  if (tiles > 1) keys.Load(shared.k[1], shared.v[1], shared.columns[1]);
  CommitCopies();
  WaitForCopies<1>();
  FenceSharedForWgmma();
  __syncthreads();

  const uint64_t q = TileDescriptor(shared.q[group]);
  Accumulator scores, out = {};
  Softmax softmax;
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % kStages;
    Pin(scores);
    WgmmaFence();
    MultiplyRows(scores, q, TileDescriptor(shared.k[stage]), false);
    WgmmaCommit();
    Random128 draws[4];
    Draw<kDropout>(draws, a, call, b, h, first, tile, lane);
    WgmmaWait<0>();
    Pin(scores);
    if (shared.columns[stage].info.masked) AddMask(scores, shared.columns[stage], c);
    softmax.Begin(scores, 0, out);
    uint32_t p[4][4];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      softmax.Add(scores[t]);
      if constexpr (kDropout) DropForQueryRows(scores[t], draws[t], a.dropout);
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
    }
    WgmmaWait<0>();
    Pin(out);
  }

  WaitForCopies<0>();
  __syncthreads();
  softmax.Finish(a, b, h, first, kDropout ? KeptPart(a.dropout) : 1, out, shared.q[group] + 16 * warp * kRowBytes,
                 lane);
}

// --- With biases.
struct BiasedShared {
  char q[kTileBytes];
  char k[2][kTileBytes];
  char v[2][kTileBytes];
  FusedTokens columns[3];
};

template <bool kDropout>
__global__ void __launch_bounds__(kThreads, 4)
    HopperBiasedForwardKernel(const __grid_constant__ FusedForwardArguments a) {
  __shared__ __align__(16) char tables[4 * kFusedTables];
  extern __shared__ char memory[];
  BiasedShared& shared = *reinterpret_cast<BiasedShared*>(AlignTiles(memory));
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
  const int b = blockIdx.z, h = blockIdx.y, length = a.shape.length;
  const int block_row = blockIdx.x * kFusedTile, first = block_row + warp * 16;
  const int tiles = a.step.key_tiles[b];
  const uint32_t call = kDropout ? CallOf(a.dropout) : 0;

  RowLoader<kFusedTile, kThreads>(a.q, b, h, block_row, length).Load(shared.q);
  LoadTables(tables, a.step.tables, h);
  KeyLoader keys(a, b, h);
  if (tiles > 0) keys.LoadKeys(shared.k[0], shared.columns[0]);
  CommitCopies();
  if (tiles > 0) keys.LoadValues(shared.v[0]);
  if (tiles > 1) keys.LoadKeys(shared.k[1], shared.columns[1]);
  CommitCopies();
  const FusedTokens* const queries = TokensOf(a.step.queries, a.shape, b);
  const Rows rows = LoadRowParts(queries, first, g);
  TileClasses classes;
  if (tiles > 0) classes.Load(queries, first, TokensOf(a.step.keys, a.shape, b), 0, tiles);
  WaitForCopies<1>();
  FenceSharedForWgmma();
  __syncthreads();

  const uint64_t q = TileDescriptor(shared.q);
  Accumulator scores, out = {};
  Random128 draws[4];
  uint32_t p[4][4];
  float constant = 0;  // belongs to all of the scores
  Softmax softmax;

  // A tile's scores are there.
  const auto begin = [&](int tile) {
    WaitForCopies<0>();
    FenceSharedForWgmma();
    __syncthreads();
    // This tile's values and the next one's keys are here, and all warps are done with this one's keys and the last
    // one's values.
    if (tile + 1 < tiles) keys.LoadValues(shared.v[(tile + 1) % 2]);
    if (tile + 2 < tiles) keys.LoadKeys(shared.k[tile % 2], shared.columns[(tile + 2) % 3]);
    CommitCopies();
    if (shared.columns[tile % 3].info.masked) AddMask(scores, shared.columns[tile % 3], c);
    softmax.Begin(scores, constant, out);
  };
  const auto finish = [&](int t) {
    softmax.Add(scores[t]);
    if constexpr (kDropout) DropForQueryRows(scores[t], draws[t], a.dropout);
    PackA(p[t], scores[t]);
  };

  if (tiles > 0) {
    LookUp<1>(scores, tables, shared.columns[0], rows, classes.Of(0), c);
    constant = Constant(tables, shared.columns[0], rows, classes.Of(0));
    Pin(scores);
    WgmmaFence();
    MultiplyRows(scores, q, TileDescriptor(shared.k[0]), true);
    WgmmaCommit();
    Draw<kDropout>(draws, a, call, b, h, first, 0, lane);
    WgmmaWait<0>();
    Pin(scores);
    for (int tile = 0; tile + 1 < tiles; ++tile) {
      begin(tile);
      const FusedTokens& next = shared.columns[(tile + 1) % 3];
      if ((tile + 1) % 32 == 0) {
        const int sequence = Opaque(b);
        classes.Load(TokensOf(a.step.queries, a.shape, sequence), first, TokensOf(a.step.keys, a.shape, sequence),
                     tile + 1, tiles);
      }
      const TileClass kind = classes.Of(tile + 1);
      LookUp<1>(scores, tables, next, rows, kind, c, finish);
      constant = Constant(tables, next, rows, kind);
      Pin(scores);
      Pin(out);
      WgmmaFence();
      MultiplyColumns(out, p, TileDescriptor(shared.v[tile % 2]));
      MultiplyRows(scores, q, TileDescriptor(shared.k[(tile + 1) % 2]), true);
      WgmmaCommit();
      Draw<kDropout>(draws, a, call, b, h, first, tile + 1, lane);
      WgmmaWait<0>();
      Pin(scores);
      Pin(out);
    }
    begin(tiles - 1);
#pragma unroll
    for (int t = 0; t < 4; ++t) finish(t);
    Pin(out);
    WgmmaFence();
    MultiplyColumns(out, p, TileDescriptor(shared.v[(tiles - 1) % 2]));
    WgmmaCommit();
    WgmmaWait<0>();
    Pin(out);
  }

  WaitForCopies<0>();
  __syncthreads();
  softmax.Finish(a, b, h, first, kDropout ? KeptPart(a.dropout) : 1, out, shared.q + 16 * warp * kRowBytes, lane);
}

}  // namespace

const char* fused::HopperForward(const FusedForwardArguments& arguments, cudaStream_t stream) {
  return Dispatch(arguments, [&](auto bias, auto dropout) {
    if constexpr (decltype(bias)::value) {
      return Launch(HopperBiasedForwardKernel<dropout>, arguments.shape, 1, kAlignment + sizeof(BiasedShared), stream,
                    arguments);
    } else {
      return Launch(HopperForwardKernel<dropout>, arguments.shape, kGroups, kAlignment + sizeof(Shared), stream,
                    arguments);
    }
  });
}

}  // namespace attnfleet::trainer
