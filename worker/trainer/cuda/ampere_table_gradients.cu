// The gradients of the bias tables with mma.sync, behind both halves of the backward pass and only where the tables
// train. The gradient of every score is computed as in ampere_backward_q.cu and added to the entries of its three
// differences, a head's entries in shared memory; then entries are added up to buckets.
//
// Deterministic: what many threads add to one entry are integers, whose sum does not depend on their order, and floats
// are added up in a fixed order. An integer counts units of a tile, 64 queries x 64 keys: a power of two for which the
// tile's largest gradient is at most 2^18 units, however small or large the loss is. So all 4,096 gradients of a tile
// in one entry are at most 2^30, which 32 bits hold, and each is rounded by at most 2^-18 of the largest beside it: the
// gradients themselves are known to about 2^-9, from bf16 outputs. Behind each tile an entry's count goes into its
// float.

#include "worker/trainer/cuda/fused_launch.cuh"

namespace attnfleet::trainer {
namespace {

using namespace fused;

constexpr int kBlocksPerSm = 3;
constexpr int kOwnEntries = (kFusedTables + kThreads - 1) / kThreads;  // that a thread adds up
constexpr int kRelativeBuckets = 32, kSpatialBuckets = 64;

struct Shared {
  char k[2][kTileBytes];  // Q is in the second one, and dout in that of V, until it is in registers
  char v[2][kTileBytes];
  FusedTokens columns[2];
  int32_t counts[kFusedTables];
  unsigned largest[kWarps];
};

// Units of a tile whose largest gradient has these bits.
struct Unit {
  float inverse, value;
};

// Not-a-number where the largest is not finite: so are then all entries, and nobody takes them for a gradient.
__device__ __forceinline__ Unit UnitOf(unsigned largest) {
  constexpr unsigned kInfinity = 0x7F800000;
  if (largest >= kInfinity) return {0, __uint_as_float(0x7FFFFFFF)};
  // 2^e <= largest < 2^(e + 1); the unit is 2^(e - 17). Below e = -109 it is as there, so that it is a normal number.
  const unsigned exponent = max(largest >> 23, 18u);
  return {__uint_as_float((271 - exponent) << 23), __uint_as_float((exponent - 17) << 23)};
}

// The smallest and largest part of a warp's 16 rows.
struct Range {
  int low, high;
};

__device__ __forceinline__ Range WarpRange(const int32_t (&parts)[2]) {
  return {__reduce_min_sync(~0u, min(parts[0], parts[1])), __reduce_max_sync(~0u, max(parts[0], parts[1]))};
}

// The tables' entries of an axis for 16 rows and a tile's columns, if it is the same one for all.
struct OneEntry {
  bool is;
  int offset;
};

__device__ __forceinline__ OneEntry FindOneEntry(Range rows, int low, int high, int end) {
  const int offset = __viaddmin_s32_relu(low, rows.low, end);
  return {offset == __viaddmin_s32_relu(high, rows.high, end), offset};
}

struct Entries {
  OneEntry x, y, p;
};

__device__ __forceinline__ void Add(int32_t* counts, int table, int offset, int count) {
  atomicAdd(reinterpret_cast<int*>(reinterpret_cast<char*>(counts + table) + offset), count);
}

// Adds a warp's 16 rows x 64 columns to the entries of their differences.
__device__ __forceinline__ void AddTile(int32_t* counts, const float (&gradients)[4][2][4], float inverse_unit,
                                        const FusedTokens& columns, const Rows& rows, const Entries& entries,
                                        int lane) {
  const auto& [x, y, p] = entries;
  int sum = 0;
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const int first = 8 * n + 2 * (lane % 4);
    const int2 column_x = *reinterpret_cast<const int2*>(&columns.x[first]);
    const int2 column_y = *reinterpret_cast<const int2*>(&columns.y[first]);
    const int2 column_p = *reinterpret_cast<const int2*>(&columns.p[first]);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto offset = [&](const int2& column, const int32_t(&row)[2], int end) {
        return __viaddmin_s32_relu(i % 2 == 0 ? column.x : column.y, row[i / 2], end);
      };
      const int count = __float2int_rn(gradients[n / 2][n % 2][i] * inverse_unit);
      sum += count;
      if (!x.is) Add(counts, kXTable, offset(column_x, rows.x, kSpatialEnd), count);
      if (!y.is) Add(counts, kYTable, offset(column_y, rows.y, kSpatialEnd), count);
      if (!p.is) Add(counts, kRelativeStart, offset(column_p, rows.p, kRelativeEnd), count);
    }
  }
  if (!x.is && !y.is && !p.is) return;
  sum = __reduce_add_sync(~0u, sum);
  if (lane != 0) return;
  if (x.is) Add(counts, kXTable, x.offset, sum);
  if (y.is) Add(counts, kYTable, y.offset, sum);
  if (p.is) Add(counts, kRelativeStart, p.offset, sum);
}

// Block (i, h) takes tiles of 64 queries i, i + gridDim.x, ... of all sequences, with all of their keys.
template <bool kDropout>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    AmpereTableGradientKernel(const __grid_constant__ FusedBackwardArguments arguments) {
  __shared__ __align__(16) char tables[4 * kFusedTables];
  extern __shared__ __align__(128) char memory[];
  const FusedForwardArguments& a = arguments.forward;
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, c = lane % 4;
  const int h = blockIdx.y, length = a.shape.length, warp_row = warp * 16;
  const int row_tiles = (length + kFusedTile - 1) / kFusedTile;
  const float kept = kDropout ? KeptPart(a.dropout) : 1;
  const uint32_t call = kDropout ? CallOf(a.dropout) : 0;

  LoadTables(tables, a.step.tables, h);
  CommitCopies();
  WaitForCopies<0>();
  for (int i = threadIdx.x; i < kFusedTables; i += kThreads) shared.counts[i] = 0;
  float sums[kOwnEntries] = {};
  for (int item = blockIdx.x; item < a.shape.batch * row_tiles; item += gridDim.x) {
    const int b = item / row_tiles, block_row = item % row_tiles * kFusedTile, first = block_row + warp_row;
    const int tiles = a.step.key_tiles[b];
    if (tiles == 0) continue;
    RowLoader<kFusedTile, kThreads>(a.q, b, h, block_row, length).Load(shared.k[1]);
    RowLoader<kFusedTile, kThreads>(arguments.dout, b, h, block_row, length).Load(shared.v[1]);
    KeyLoader keys(a, b, h);
    keys.Load(shared.k[0], shared.v[0], shared.columns[0]);
    CommitCopies();
    const Rows rows = LoadRowParts(TokensOf(a.step.queries, a.shape, b), first, g);
    const Range row_x = WarpRange(rows.x), row_y = WarpRange(rows.y), row_p = WarpRange(rows.p);
    float lse[2], delta[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      lse[r] = *RowValue(a.lse, a.shape, b, h, first + g + 8 * r);
      delta[r] = *RowValue(arguments.delta, a.shape, b, h, first + g + 8 * r);
    }
    WaitForCopies<0>();
    __syncthreads();
    uint32_t q[4][4], dout[4][4];
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      LoadA(q[step], shared.k[1], warp_row, step, lane);
      LoadA(dout[step], shared.v[1], warp_row, step, lane);
    }
    __syncthreads();

    for (int tile = 0; tile < tiles; ++tile) {
      const int stage = tile % 2;
      AwaitTile(tile + 1 < tiles,
                [&] { keys.Load(shared.k[1 - stage], shared.v[1 - stage], shared.columns[1 - stage]); });
      const FusedTokens& columns = shared.columns[stage];
      float scores[4][2][4];  // and then their gradients, times `kept` and 1 / kRoot
      const FusedTileInfo& info = columns.info;
      const Entries entries{FindOneEntry(row_x, info.x_min, info.x_max, kSpatialEnd),
                            FindOneEntry(row_y, info.y_min, info.y_max, kSpatialEnd),
                            FindOneEntry(row_p, info.p_min, info.p_max, kRelativeEnd)};
      const TileClass kind{!entries.x.is || !entries.y.is, !entries.p.is, false};
      LookUp<1>(scores, tables, columns, rows, kind, c);
      const float constant = Constant(tables, columns, rows, kind);
      if (columns.info.masked) AddMask(scores, columns, c);
      const float down[2] = {lse[0] - constant * kScale, lse[1] - constant * kScale};
      unsigned largest = 0;  // of the bits of absolute values, which are ordered as these are, with NaN above all
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        float gradients[2][4] = {};
#pragma unroll
        for (int step = 0; step < 4; ++step) {
          uint32_t k[4], v[4];
          LoadB(k, shared.k[stage], 16 * t, step, lane);
          LoadB(v, shared.v[stage], 16 * t, step, lane);
          MultiplyAdd(scores[t][0], q[step], k[0], k[1]);
          MultiplyAdd(scores[t][1], q[step], k[2], k[3]);
          MultiplyAdd(gradients[0], dout[step], v[0], v[1]);
          MultiplyAdd(gradients[1], dout[step], v[2], v[3]);
        }
        if constexpr (kDropout) {
          const Random128 draw =
              DrawForQueryRows(a.dropout, call, b * a.shape.heads + h, first, tile * kFusedTile + 16 * t, lane);
          DropForQueryRows(gradients, draw, a.dropout);
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const int r = i % 4 / 2;
          float& score = scores[t][i / 4][i % 4];
          score = Exp2(score * kScale - down[r]) * (gradients[i / 4][i % 4] - delta[r]);
          largest = max(largest, __float_as_uint(score) & 0x7FFFFFFF);
        }
      }
      largest = __reduce_max_sync(~0u, largest);
      if (lane == 0) shared.largest[warp] = largest;
      __syncthreads();
      largest = 0;
#pragma unroll
      for (const unsigned of_warp : shared.largest) largest = max(largest, of_warp);
      if (largest == 0) continue;  // as where the queries are padding, whose outputs nobody reads
      const Unit unit = UnitOf(largest);
      AddTile(shared.counts, scores, unit.inverse, columns, rows, entries, lane);
      __syncthreads();
#pragma unroll
      for (int i = 0; i < kOwnEntries; ++i) {
        const int entry = threadIdx.x + i * kThreads;
        if (entry >= kFusedTables) break;
        sums[i] += unit.value * static_cast<float>(shared.counts[entry]);
        shared.counts[entry] = 0;
      }
    }
  }

  float* const partial = arguments.tables.partial + (int64_t{h} * gridDim.x + blockIdx.x) * kFusedTables;
#pragma unroll
  for (int i = 0; i < kOwnEntries; ++i) {
    const int entry = threadIdx.x + i * kThreads;
    if (entry < kFusedTables) partial[entry] = sums[i] * (kRoot / kept);
  }
}

__device__ __forceinline__ int BucketOf(const int64_t* buckets, int largest, int difference) {
  return static_cast<int>(buckets[min(max(difference, -largest), largest) + largest]);
}

// A block for each head. Entries that only fill a table up have not been added to.
__global__ void AddUpBuckets(const FusedTableGradients to, int groups) {
  __shared__ double sums[kFusedTables];
  __shared__ int buckets[kFusedTables];
  const int h = blockIdx.x;
  const float* const partial = to.partial + int64_t{h} * groups * kFusedTables;
  for (int entry = threadIdx.x; entry < kFusedTables; entry += blockDim.x) {
    double sum = 0;
    for (int group = 0; group < groups; ++group) sum += partial[int64_t{group} * kFusedTables + entry];
    sums[entry] = sum;
    buckets[entry] = entry >= kRelativeTable
                         ? BucketOf(to.relative_buckets, to.relative_largest, entry - kRelativeStart - kRelativeReach)
                         : BucketOf(to.spatial_buckets, to.spatial_largest,
                                    entry - (entry >= kYTable ? kYTable : kXTable) - kSpatialReach);
  }
  __syncthreads();
  const auto add_up = [&](float* gradient, int count, int begin, int end, int bucket) {
    if (gradient == nullptr || bucket < 0 || bucket >= count) return;
    double sum = 0;
    for (int entry = begin; entry < end; ++entry) {
      if (buckets[entry] == bucket) sum += sums[entry];
    }
    gradient[h * count + bucket] = static_cast<float>(sum);
  };
  const int i = threadIdx.x;
  add_up(to.x, kSpatialBuckets, kXTable, kYTable, i);
  add_up(to.y, kSpatialBuckets, kYTable, kRelativeTable, i - kSpatialBuckets);
  add_up(to.relative, kRelativeBuckets, kRelativeTable, kFusedTables, i - 2 * kSpatialBuckets);
}

}  // namespace

const char* fused::AmpereTableGradients(const FusedBackwardArguments& arguments, cudaStream_t stream) {
  const FusedForwardArguments& forward = arguments.forward;
  const int groups = FusedTableGroups(forward.shape);
  const auto kernel =
      forward.dropout.threshold < 65536 ? AmpereTableGradientKernel<true> : AmpereTableGradientKernel<false>;
  cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared));
  if (status != cudaSuccess) return cudaGetErrorString(status);
  const auto heads = static_cast<unsigned>(forward.shape.heads);
  kernel<<<dim3(static_cast<unsigned>(groups), heads), kThreads, sizeof(Shared), stream>>>(arguments);
  AddUpBuckets<<<heads, 512, 0, stream>>>(arguments.tables, groups);
  status = cudaGetLastError();
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

}  // namespace attnfleet::trainer
