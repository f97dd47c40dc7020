// What all layers of a step share: value tables, coordinates as the kernels add them up, what is known of each tile.

#include "worker/trainer/cuda/fused_launch.cuh"

namespace attnfleet::trainer {
namespace {

using namespace fused;

constexpr int kLargestCoordinate = 4095;

__device__ float Value(const float* table, int columns, const int64_t* buckets, int largest, int h, int difference) {
  if (table == nullptr) return 0;
  const int bounded = min(max(difference, -largest), largest);
  return table[h * columns + buckets[bounded + largest]];
}

__global__ void ValueTables(const FusedSource source, float* tables) {
  const int h = blockIdx.x;
  for (int i = threadIdx.x; i < kFusedTables; i += blockDim.x) {
    float value;
    if (i < kRelativeTable) {
      const bool x = i < kYTable;
      value = Value(x ? source.x_table : source.y_table, 64, source.spatial_buckets, source.spatial_largest, h,
                    i - (x ? kXTable : kYTable) - kSpatialReach);
    } else {
      value = Value(source.relative_table, 32, source.relative_buckets, source.relative_largest, h,
                    min(max(i - kRelativeTable - kRelativeMargin, 0), 2 * kRelativeReach) - kRelativeReach);
    }
    tables[h * kFusedTables + i] = value;
  }
}

// A warp for each tile.
__global__ void Tiles(const FusedShape shape, const FusedSource source, const FusedStep step) {
  const int b = blockIdx.y, tile = blockIdx.x, lane = threadIdx.x;
  const int64_t index = int64_t{b} * gridDim.x + tile;
  FusedTokens& keys = step.keys[index];
  FusedTokens& queries = step.queries[index];
  FusedTileInfo info{INT_MAX, INT_MIN, INT_MAX, INT_MIN, INT_MAX, INT_MIN, 0, 1};
  int last = -1, first_p = 0;
  for (int i = lane; i < kFusedTile; i += 32) {
    const int j = tile * kFusedTile + i;
    const bool real = j < shape.length && source.mask[b * int64_t{shape.length} + j] != 0;
    if (real) last = j;
    if (!real) info.masked = 1;
    keys.mask[i] = real ? 0 : -INFINITY;
    queries.mask[i] = 0;
    if (!shape.bias) continue;
    const int token = min(j, shape.length - 1);
    const int64_t* const box = source.boxes + (b * int64_t{shape.length} + token) * 4;
    const int x = 4 * static_cast<int>(min(max(box[0], int64_t{0}), int64_t{kLargestCoordinate}));
    const int y = 4 * static_cast<int>(min(max(box[3], int64_t{0}), int64_t{kLargestCoordinate}));
    // Behind the end they go on by one, as before it.
    const int p = 4 * (static_cast<int>(source.positions[token]) + j - token);
    if (i == lane) first_p = __shfl_sync(~0u, p, 0);
    if (p != first_p + 4 * i) info.consecutive = 0;
    keys.x[i] = x;
    keys.y[i] = y;
    queries.x[i] = 4 * kSpatialReach - x;
    queries.y[i] = 4 * kSpatialReach - y;
    keys.p[i] = p;
    queries.p[i] = 4 * kRelativeReach - p;
    info = {min(info.x_min, x), max(info.x_max, x), min(info.y_min, y), max(info.y_max, y),
            min(info.p_min, p), max(info.p_max, p), info.masked,        info.consecutive};
  }
  info = {__reduce_min_sync(~0u, info.x_min),  __reduce_max_sync(~0u, info.x_max),
          __reduce_min_sync(~0u, info.y_min),  __reduce_max_sync(~0u, info.y_max),
          __reduce_min_sync(~0u, info.p_min),  __reduce_max_sync(~0u, info.p_max),
          __reduce_max_sync(~0u, info.masked), __reduce_min_sync(~0u, info.consecutive)};
  last = __reduce_max_sync(~0u, last);
  if (lane != 0) return;
  if (!shape.bias) info.x_min = info.x_max = info.y_min = info.y_max = info.p_min = info.p_max = 0;
  keys.info = info;
  queries.info = {4 * kSpatialReach - info.x_max,
                  4 * kSpatialReach - info.x_min,
                  4 * kSpatialReach - info.y_max,
                  4 * kSpatialReach - info.y_min,
                  4 * kRelativeReach - info.p_max,
                  4 * kRelativeReach - info.p_min,
                  0,
                  info.consecutive};
  if (last >= 0) atomicMax(&step.key_tiles[b], tile + 1);
}

}  // namespace

const char* FusedPrepare(const FusedShape& shape, const FusedSource& source, const FusedStep& step,
                         CUstream_st* stream) {
  cudaError_t status = cudaMemsetAsync(step.key_tiles, 0, static_cast<size_t>(shape.batch) * sizeof(int32_t), stream);
  if (status != cudaSuccess) return cudaGetErrorString(status);
  if (shape.bias) ValueTables<<<static_cast<unsigned>(shape.heads), 256, 0, stream>>>(source, step.tables);
  const dim3 grid(static_cast<unsigned>(FusedPadded(shape.length) / kFusedTile), static_cast<unsigned>(shape.batch));
  Tiles<<<grid, 32, 0, stream>>>(shape, source, step);
  status = cudaGetLastError();
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

}  // namespace attnfleet::trainer
