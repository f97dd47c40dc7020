#ifndef ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_TILE_CUH_
#define ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_TILE_CUH_

// What the fused attention's kernels share: tiles in shared memory, tensor-core fragments, biases, dropout. Notation of
// mma.m16n8k16: a lane has g = lane / 4 and c = lane % 4; of a 16 x 8 accumulator it holds rows g and g + 8, columns
// 2 c and 2 c + 1.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "worker/trainer/cuda/fused_attention.h"
#include "worker/trainer/cuda/fused_random.h"

namespace attnfleet::trainer::fused {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kRowBytes = 2 * kFusedHeadSize;
constexpr int kTileBytes = kFusedTile * kRowBytes;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kRoot = 0.125f;  // 1 / sqrt(kFusedHeadSize)
constexpr float kScale = kRoot * kLog2E;

// --- Asynchronous copies, 16 bytes each.
__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Zeros where it is not `valid`.
__device__ __forceinline__ void CopyAsync(void* shared, const void* global, bool valid = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(SharedAddress(shared)), "l"(global),
               "r"(valid ? 16 : 0));
}
__device__ __forceinline__ void CommitCopies() { asm volatile("cp.async.commit_group;\n" ::); }
template <int kPending>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending));
}

// A tile has rows of 128 bytes; the eight 16-byte chunks of a row are permuted by the row, so that the eight rows of an
// ldmatrix lie in different banks.
__device__ __forceinline__ int ChunkOffset(int row, int chunk) { return row * kRowBytes + ((chunk ^ (row & 7)) << 4); }

__device__ __forceinline__ const char* RowPointer(const FusedMatrix& matrix, int b, int h, int row) {
  return static_cast<const char*>(matrix.data) +
         2 * (b * matrix.batch_stride + h * matrix.head_stride + row * matrix.row_stride);
}

// Copies kRows rows at a time, one block of them after the other, with kBlock threads; rows from `length` on are zero.
template <int kRows, int kBlock>
class RowLoader {
 public:
  __device__ __forceinline__ RowLoader(const FusedMatrix& matrix, int b, int h, int first, int length)
      : next_(RowPointer(matrix, b, h, first + threadIdx.x / 8) + 16 * (threadIdx.x % 8)),
        step_(2 * kStep * matrix.row_stride),
        left_(length - first - static_cast<int>(threadIdx.x / 8)),
        offset_(ChunkOffset(threadIdx.x / 8, threadIdx.x % 8)) {}

  __device__ __forceinline__ void Load(char* tile) {
#pragma unroll
    for (int i = 0; i < kRows / kStep; ++i) {
      CopyAsync(tile + offset_ + i * kStep * kRowBytes, next_, i * kStep < left_);
      next_ += step_;
    }
    left_ -= kRows;
  }

 private:
  static constexpr int kStep = kBlock / 8;  // rows
  const char* next_;
  const int64_t step_;
  int left_;
  const int offset_;
};

// --- Fragments.
__device__ __forceinline__ void LoadMatrices(uint32_t (&to)[4], const char* from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(SharedAddress(from)));
}
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t (&to)[4], const char* from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(SharedAddress(from)));
}

// A (16 x 16): rows [row, row + 16), columns 16 `step` and on.
__device__ __forceinline__ void LoadA(uint32_t (&a)[4], const char* tile, int row, int step, int lane) {
  LoadMatrices(a, tile + ChunkOffset(row + lane % 16, 2 * step + lane / 16));
}
// B for two accumulators of 8 columns, where the tile's rows are B's columns: rows [row, row + 16).
__device__ __forceinline__ void LoadB(uint32_t (&b)[4], const char* tile, int row, int step, int lane) {
  LoadMatrices(b, tile + ChunkOffset(row + lane / 16 * 8 + lane % 8, 2 * step + lane / 8 % 2));
}
// B for two accumulators of 8 columns, where the tile's rows are the sum's index: rows [row, row + 16), columns
// 16 `pair` and on.
__device__ __forceinline__ void LoadBTransposed(uint32_t (&b)[4], const char* tile, int row, int pair, int lane) {
  LoadMatricesTransposed(b, tile + ChunkOffset(row + lane % 16, 2 * pair + lane / 16));
}

__device__ __forceinline__ void MultiplyAdd(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t Pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t&>(pair);
}

// Two accumulators side by side as A.
__device__ __forceinline__ void PackA(uint32_t (&a)[4], const float (&values)[2][4]) {
  a[0] = Pack(values[0][0], values[0][1]);
  a[1] = Pack(values[0][2], values[0][3]);
  a[2] = Pack(values[1][0], values[1][1]);
  a[3] = Pack(values[1][2], values[1][3]);
}

__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

// Writes 16 rows x 64 columns of a warp, times `scale`, as bf16; `scratch` is 16 rows of a tile that the warp has for
// itself, at a row that is a multiple of 8.
__device__ __forceinline__ void StoreRows(const FusedMatrix& matrix, int b, int h, int first, int length, char* scratch,
                                          const float (&values)[8][4], float scale_g, float scale_g8, int lane) {
  const int g = lane / 4, c = lane % 4;
  __syncwarp();
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    *reinterpret_cast<uint32_t*>(scratch + ChunkOffset(g, n) + 4 * c) =
        Pack(values[n][0] * scale_g, values[n][1] * scale_g);
    *reinterpret_cast<uint32_t*>(scratch + ChunkOffset(g + 8, n) + 4 * c) =
        Pack(values[n][2] * scale_g8, values[n][3] * scale_g8);
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = 4 * i + lane / 8, chunk = lane % 8;
    const int4 data = *reinterpret_cast<const int4*>(scratch + ChunkOffset(row, chunk));
    if (first + row < length) {
      *reinterpret_cast<int4*>(const_cast<char*>(RowPointer(matrix, b, h, first + row)) + 16 * chunk) = data;
    }
  }
}

// --- Biases. Offsets into the tables are in bytes; a row's and a column's part add up (FusedStep).
constexpr int kSpatialEnd = 4 * 2 * kSpatialReach;
constexpr int kRelativeEnd = 4 * 2 * kRelativeReach;
constexpr int kRelativeStart = kRelativeTable + kRelativeMargin;

// The parts of rows g and g + 8.
struct Rows {
  int32_t x[2], y[2], p[2];
};

// Of a warp's rows, from row `first` of `tokens` on.
__device__ __forceinline__ Rows LoadRowParts(const FusedTokens* tokens, int first, int g) {
  const FusedTokens& tile = tokens[first / kFusedTile];
  const int row = first % kFusedTile + g;
  return {{tile.x[row], tile.x[row + 8]}, {tile.y[row], tile.y[row + 8]}, {tile.p[row], tile.p[row + 8]}};
}

// What has to be looked up for a warp's 16 rows and a tile's columns; an axis is one number where the clamped sum of
// every row's and every column's part is the same entry.
struct TileClass {
  bool spatial;      // x and y
  bool relative;     // positions that come in any order
  bool consecutive;  // positions that do not
};

// That of 32 tiles, a bit each.
class TileClasses {
 public:
  // Of a warp's rows, from row `first` of `rows` on; of the tiles from `tile` on, a multiple of 32.
  __device__ __forceinline__ void Load(const FusedTokens* rows, int first, const FusedTokens* columns, int tile,
                                       int tiles) {
    const int lane = threadIdx.x % 32;
    const FusedTokens& own = rows[first / kFusedTile];
    const int row = first % kFusedTile + lane % 16;
    const FusedTileInfo& info = columns[min(tile + lane, tiles - 1)].info;
    const bool x = Differs(own.x[row], info.x_min, info.x_max, kSpatialEnd);
    const bool y = Differs(own.y[row], info.y_min, info.y_max, kSpatialEnd);
    const bool relative = Differs(own.p[row], info.p_min, info.p_max, kRelativeEnd);
    const bool consecutive = own.info.consecutive != 0 && info.consecutive != 0;
    spatial_ = __ballot_sync(~0u, x || y);
    relative_ = __ballot_sync(~0u, relative && !consecutive);
    consecutive_ = __ballot_sync(~0u, relative && consecutive);
  }

  __device__ __forceinline__ TileClass Of(int tile) const {
    const auto bit = [&](uint32_t bits) { return (bits >> tile % 32 & 1) != 0; };
    return {bit(spatial_), bit(relative_), bit(consecutive_)};
  }

 private:
  static __device__ __forceinline__ bool Differs(int part, int low, int high, int end) {
    return __viaddmin_s32_relu(low, __reduce_min_sync(~0u, part), end) !=
           __viaddmin_s32_relu(high, __reduce_max_sync(~0u, part), end);
  }

  uint32_t spatial_ = 0, relative_ = 0, consecutive_ = 0;
};

__device__ __forceinline__ float Entry(const char* tables, int table, int row, int column, int end) {
  return *reinterpret_cast<const float*>(tables + __viaddmin_s32_relu(column, row, end) + 4 * table);
}

// The sum of the axes that are one number.
__device__ __forceinline__ float Constant(const char* tables, const FusedTokens& columns, const Rows& rows,
                                          const TileClass& kind) {
  float constant = 0;
  if (!kind.spatial) {
    constant = Entry(tables, kXTable, rows.x[0], columns.x[0], kSpatialEnd) +
               Entry(tables, kYTable, rows.y[0], columns.y[0], kSpatialEnd);
  }
  if (!kind.relative && !kind.consecutive) {
    constant += Entry(tables, kRelativeStart, rows.p[0], columns.p[0], kRelativeEnd);
  }
  return constant;
}

// x and y of 16 rows x 16 columns from `column` on.
__device__ __forceinline__ void LookUpSpatial(float (&biases)[2][4], const char* tables, const FusedTokens& columns,
                                              int column, const Rows& rows, int c) {
#pragma unroll
  for (int u = 0; u < 2; ++u) {
    const int2 x = *reinterpret_cast<const int2*>(&columns.x[column + 8 * u + 2 * c]);
    const int2 y = *reinterpret_cast<const int2*>(&columns.y[column + 8 * u + 2 * c]);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      biases[u][i] = Entry(tables, kXTable, rows.x[i / 2], i % 2 == 0 ? x.x : x.y, kSpatialEnd) +
                     Entry(tables, kYTable, rows.y[i / 2], i % 2 == 0 ? y.x : y.y, kSpatialEnd);
    }
  }
}

// Adds positions.
__device__ __forceinline__ void LookUpRelative(float (&biases)[2][4], const char* tables, const FusedTokens& columns,
                                               int column, const Rows& rows, int c) {
#pragma unroll
  for (int u = 0; u < 2; ++u) {
    const int2 p = *reinterpret_cast<const int2*>(&columns.p[column + 8 * u + 2 * c]);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      biases[u][i] += Entry(tables, kRelativeStart, rows.p[i / 2], i % 2 == 0 ? p.x : p.y, kRelativeEnd);
    }
  }
}

// Any of the above, for a block of 16 columns.
__device__ __forceinline__ void LookUpBlock(float (&biases)[2][4], const char* tables, const FusedTokens& columns,
                                            int column, const Rows& rows, const TileClass& kind, int c) {
  if (kind.spatial) {
    LookUpSpatial(biases, tables, columns, column, rows, c);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) biases[i / 4][i % 4] = 0;
  }
  if (kind.relative || kind.consecutive) LookUpRelative(biases, tables, columns, column, rows, c);
}

// Consecutive positions of a tile, in order: an entry lies kStep (1, or -1 where columns are queries) from that of the
// column before, and row g + 8 has those that row g has eight columns before. The margin of the table is for those that
// would be clamped.
template <int kStep>
class Consecutive {
 public:
  __device__ __forceinline__ Consecutive(const char* tables, const FusedTokens& columns, const Rows& rows, int c)
      : entries_(tables + 4 * kRelativeStart + rows.p[0] + columns.p[0] + kStep * 8 * c),
        before_{At(-1, 0), At(-1, 1)} {}

  // Adds them for block `t` of 16 columns; blocks come in order.
  __device__ __forceinline__ void Add(float (&biases)[2][4], int t) {
#pragma unroll
    for (int u = 0; u < 2; ++u) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float entry = At(2 * t + u, i);
        biases[u][i] += entry;
        biases[u][2 + i] += before_[i];
        before_[i] = entry;
      }
    }
  }

 private:
  __device__ __forceinline__ float At(int block, int i) const {
    return *reinterpret_cast<const float*>(entries_ + kStep * (32 * block + 4 * i));
  }

  const char* const entries_;
  float before_[2];
};

// In place of those where they are not consecutive; to make those would read outside of the table.
struct NoPositions {
  __device__ __forceinline__ void Add(float (&)[2][4], int) const {}
};

// The biases of a tile, without its constant: the initial value of the scores' accumulators. `before(t)` is what is to
// be done before those of each block of 16 columns; then the block is free to be written.
template <int kStep, class Before>
__device__ __forceinline__ void LookUp(float (&biases)[4][2][4], const char* tables, const FusedTokens& columns,
                                       const Rows& rows, const TileClass& kind, int c, const Before& before) {
  const auto blocks = [&](auto spatial, auto positions) {
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      before(t);
      if constexpr (decltype(spatial)::value) {
        LookUpSpatial(biases[t], tables, columns, 16 * t, rows, c);
      } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) biases[t][i / 4][i % 4] = 0;
      }
      positions.Add(biases[t], t);
    }
  };
  constexpr std::true_type kYes;
  constexpr std::false_type kNo;
  if (kind.spatial && kind.consecutive) {
    blocks(kYes, Consecutive<kStep>(tables, columns, rows, c));
  } else if (kind.spatial) {
    blocks(kYes, NoPositions());
  } else if (kind.consecutive) {
    blocks(kNo, Consecutive<kStep>(tables, columns, rows, c));
  } else {
    blocks(kNo, NoPositions());
  }
  if (kind.relative) {
#pragma unroll
    for (int t = 0; t < 4; ++t) LookUpRelative(biases[t], tables, columns, 16 * t, rows, c);
  }
}

template <int kStep>
__device__ __forceinline__ void LookUp(float (&biases)[4][2][4], const char* tables, const FusedTokens& columns,
                                       const Rows& rows, const TileClass& kind, int c) {
  LookUp<kStep>(biases, tables, columns, rows, kind, c, [](int) {});
}

// --- Padding.
// Where columns are keys, from `column` on.
template <int kBlocks>
__device__ __forceinline__ void AddMask(float (&scores)[kBlocks][2][4], const FusedTokens& keys, int c,
                                        int column = 0) {
#pragma unroll
  for (int n = 0; n < 2 * kBlocks; ++n) {
    const float2 mask = *reinterpret_cast<const float2*>(&keys.mask[column + 8 * n + 2 * c]);
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[n / 2][n % 2][i] += i % 2 == 0 ? mask.x : mask.y;
  }
}

// Where rows are keys.
struct RowMask {
  bool any;
  float value[2];  // of rows g and g + 8
};

__device__ __forceinline__ RowMask LoadRowMask(const FusedTokens* keys, int first, int g) {
  const FusedTokens& tile = keys[first / kFusedTile];
  const int row = first % kFusedTile + g;
  return {tile.info.masked != 0, {tile.mask[row], tile.mask[row + 8]}};
}

template <int kBlocks>
__device__ __forceinline__ void AddMask(float (&scores)[kBlocks][2][4], const RowMask& mask) {
#pragma unroll
  for (int n = 0; n < 2 * kBlocks; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[n / 2][n % 2][i] += mask.value[i / 2];
  }
}

// --- Rows.
// Over the four lanes that share a row.
__device__ __forceinline__ float QuadSum(float value) {
  value += __shfl_xor_sync(~0u, value, 1);
  return value + __shfl_xor_sync(~0u, value, 2);
}

// Of row g (r = 0) or g + 8 (r = 1).
__device__ __forceinline__ float RowMaximum(const float (&scores)[4][2][4], int r) {
  float most = -INFINITY;
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    most = fmaxf(most, fmaxf(scores[n / 2][n % 2][2 * r], scores[n / 2][n % 2][2 * r + 1]));
  }
  most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
  return fmaxf(most, __shfl_xor_sync(~0u, most, 2));
}

// --- Dropout of 16 x 16 probabilities; see DropoutDraw.
__device__ __forceinline__ float KeptPart(const FusedDropout& dropout) {
  return static_cast<float>(dropout.threshold) / 65536;
}
// Which of the two probabilities of a word are kept; see RankAsHalf.
__device__ __forceinline__ void Keeps(uint32_t word, const FusedDropout& dropout, bool& low, bool& high) {
  uint32_t keeps_low, keeps_high;
  asm("{\n.reg .pred p, q;\nsetp.ltu.f16x2 p|q, %2, %3;\nselp.u32 %0, 1, 0, p;\nselp.u32 %1, 1, 0, q;\n}\n"
      : "=r"(keeps_low), "=r"(keeps_high)
      : "r"(word), "r"(dropout.keep_below));
  low = keeps_low != 0;
  high = keeps_high != 0;
}

// See DropoutDraw. Read once, before the loops: it is the same for all of a kernel.
__device__ __forceinline__ uint32_t CallOf(const FusedDropout& dropout) {
  return dropout.offset[0] + (dropout.replayed == nullptr ? 0 : static_cast<uint32_t>(*dropout.replayed));
}

// Rows are queries: 16 from `query` on, 16 keys from `key` on, both multiples of 16.
__device__ __forceinline__ Random128 DrawForQueryRows(const FusedDropout& dropout, uint32_t call,
                                                      uint32_t sequence_head, int query, int key, int lane) {
  return DropoutDraw(dropout, call, sequence_head, query / 2 + lane / 4, key / 4 + lane % 4);
}
__device__ __forceinline__ void DropForQueryRows(float (&values)[2][4], const Random128& draw,
                                                 const FusedDropout& dropout) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float(&pair)[4] = values[i % 2];
    bool keeps_g, keeps_g8;
    Keeps(draw.word[i / 2 * 2 + i % 2], dropout, keeps_g, keeps_g8);
    pair[i / 2] = keeps_g ? pair[i / 2] : 0;
    pair[i / 2 + 2] = keeps_g8 ? pair[i / 2 + 2] : 0;
  }
}

// Rows are keys. A lane needs half of two draws, and its neighbour at the other parity of g the other halves.
__device__ __forceinline__ Random128 DrawForKeyRows(const FusedDropout& dropout, uint32_t call, uint32_t sequence_head,
                                                    int query, int key, int lane) {
  const int g = lane / 4, c = lane % 4;
  const bool odd = g % 2 != 0;
  const Random128 draw = DropoutDraw(dropout, call, sequence_head, query / 2 + 2 * c + g % 2, key / 4 + g / 2);
  const uint32_t own0 = odd ? draw.word[2] : draw.word[0];
  const uint32_t own1 = odd ? draw.word[3] : draw.word[1];
  const uint32_t other0 = __shfl_xor_sync(~0u, odd ? draw.word[0] : draw.word[2], 4);
  const uint32_t other1 = __shfl_xor_sync(~0u, odd ? draw.word[1] : draw.word[3], 4);
  return {{odd ? other0 : own0, odd ? other1 : own1, odd ? own0 : other0, odd ? own1 : other1}};
}
__device__ __forceinline__ void KeepsKeyRows(bool (&keeps)[2][4], const Random128& draw, const FusedDropout& dropout) {
#pragma unroll
  for (int i = 0; i < 4; ++i) Keeps(draw.word[i % 2 * 2 + i / 2], dropout, keeps[0][i], keeps[1][i]);
}

}  // namespace attnfleet::trainer::fused

#endif  // ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_TILE_CUH_
