#ifndef ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_ATTENTION_H_
#define ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_ATTENTION_H_

// The fused attention's kernels as plain functions over device memory; no LibTorch and no CUDA header here.
// What they compute, for each sequence b and head h, with d = 64:
//   s[i, j] = (q[i] . k[j] + relative(p[j] - p[i]) + x(x[j] - x[i]) + y(y[j] - y[i])) / sqrt(d), -inf where j is
//   padding out[i] = sum_j dropout(softmax_j(s[i, j])) v[j]
// A row without any key to attend to gives 0 and has no gradients.
// The gradient of a table's entry is the sum of those of all s[i, j] that look it up, over sqrt(d), over all sequences.

#include <cstdint>

#include "worker/trainer/cuda/fused_random.h"

struct CUstream_st;  // cudaStream_t points to it

namespace attnfleet::trainer {

inline constexpr int kFusedHeadSize = 64;
inline constexpr int kFusedTile = 64;          // keys or queries that are loaded at a time
inline constexpr int kFusedRowMultiple = 128;  // per-row buffers are padded to a multiple of this
inline constexpr int kFusedLongest = 1 << 17;  // tokens of a sequence

// Value tables: the bias for every difference from which on it does not change any more. Floats of one head.
inline constexpr int kRelativeReach = 91;  // 32 buckets up to a distance of 128
inline constexpr int kSpatialReach = 216;  // 64 buckets up to a distance of 256
inline constexpr int kXTable = 0;
inline constexpr int kYTable = kXTable + 436;  // 2 * 216 + 1, rounded up to 16 bytes
inline constexpr int kRelativeTable = kYTable + 436;
inline constexpr int kRelativeMargin = 78;  // entries behind each end, equal to it: see Consecutive
inline constexpr int kFusedTables = kRelativeTable + 340;

inline int FusedPadded(int length) { return (length + kFusedRowMultiple - 1) / kFusedRowMultiple * kFusedRowMultiple; }

// What is known of a tile of 64 tokens, in units of a table's bytes.
struct FusedTileInfo {
  int x_min, x_max, y_min, y_max;
  int p_min, p_max;
  int masked;       // it holds padding, or the sequence ends in it
  int consecutive;  // positions are p_min, p_min + 1 and so on; as queries, backwards
};

// What is known of 64 tokens as keys, or as queries. Coordinates are multiplied by 4, the size of a table's entry.
// Those of queries are subtracted from the middle of the table, so that the entry of a query and a key is at the sum,
// clamped to the table.
struct FusedTokens {
  int32_t x[kFusedTile];
  int32_t y[kFusedTile];
  int32_t p[kFusedTile];
  float mask[kFusedTile];  // 0, or -inf for padding
  FusedTileInfo info;
};

// What all layers of a step share; device memory, filled by FusedPrepare. L is FusedPadded(length).
struct FusedStep {
  float* tables;         // (H, kFusedTables)
  FusedTokens* keys;     // (B, L / kFusedTile)
  FusedTokens* queries;  // (B, L / kFusedTile)
  int32_t* key_tiles;    // (B): tiles up to the last key to attend to
};

// What FusedPrepare reads. A null table counts as zeros; without any of them positions and boxes are not read.
struct FusedSource {
  const float* relative_table;      // (H, 32)
  const float* x_table;             // (H, 64)
  const float* y_table;             // (H, 64)
  const int64_t* relative_buckets;  // (2 R + 1): of the difference d at d + R
  int relative_largest;             // R
  const int64_t* spatial_buckets;
  int spatial_largest;
  const int64_t* positions;  // (S)
  const int64_t* boxes;      // (B, S, 4)
  const int64_t* mask;       // (B, S): 0 for padding
};

struct FusedShape {
  int batch, heads, length;
  bool bias;
};

// bf16 (B, H, S, 64) seen through strides, which count elements; the innermost is 1. Rows begin at multiples of 16
// bytes.
struct FusedMatrix {
  void* data;
  int64_t batch_stride, head_stride, row_stride;
};

struct FusedForwardArguments {
  FusedShape shape;
  FusedStep step;
  FusedDropout dropout;
  FusedMatrix q, k, v, out;
  float* lse;  // (B, H, L): log2 of the sum of the row's exponentials; +inf in rows without a key and behind the end
};

// Where the tables train: their gradients, and what tells which entries of the value tables belong to which of theirs
// (FusedSource). `relative`, or `x` and `y`, are null where that bias is off.
struct FusedTableGradients {
  float* relative;  // (H, 32)
  float* x;         // (H, 64)
  float* y;         // (H, 64)
  const int64_t* relative_buckets;
  int relative_largest;
  const int64_t* spatial_buckets;
  int spatial_largest;
  float* partial;  // (H, FusedTableGroups, kFusedTables), scratch; null: no table trains
};

struct FusedBackwardArguments {
  FusedForwardArguments forward;
  FusedMatrix dout, dq, dk, dv;
  float* delta;  // (B, H, L), scratch
  FusedTableGradients tables;
};

// How many blocks share the tables' gradients of a head. 792 in all are two for each place of an H100, which has three
// on each SM; the number is the same on every GPU, and with it the order in which sums are added up.
inline int FusedTableGroups(const FusedShape& shape) {
  constexpr int kBlocks = 792;
  const int64_t tiles = int64_t{shape.batch} * ((shape.length + kFusedTile - 1) / kFusedTile);
  const int groups = shape.heads < kBlocks ? kBlocks / shape.heads : 1;
  return tiles < groups ? static_cast<int>(tiles) : groups;
}

// mma.sync and cp.async, from compute capability 8.0 on; or wgmma, on 9.x alone.
enum class FusedPath { kAmpere, kHopper };

// Each returns null, or what CUDA says is wrong. They only queue.
const char* FusedPrepare(const FusedShape& shape, const FusedSource& source, const FusedStep& step,
                         CUstream_st* stream);
const char* FusedForward(FusedPath path, const FusedForwardArguments& arguments, CUstream_st* stream);
// Deterministic. Writes all of dq, dk and dv, and of the tables' gradients where those train.
const char* FusedBackward(FusedPath path, const FusedBackwardArguments& arguments, CUstream_st* stream);
// The dropout's mask, for tests: keep (B, H, S, S) is 1 where a probability is kept.
const char* FusedKeepMask(const FusedShape& shape, const FusedDropout& dropout, uint8_t* keep, CUstream_st* stream);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_ATTENTION_H_
