// Embeddings: a token is the sum of eight rows of six tables. The gradient of a row is the sum over the tokens that
// looked it up, which may be none or all of them (equal boxes). No atomics: look-ups are sorted by row, each block adds
// up the rows of a piece of the sorted list, and what lies in several pieces is added up afterwards.

#include <cub/device/device_radix_sort.cuh>

#include "worker/trainer/cuda/step_common.cuh"

namespace attnfleet::trainer {
namespace {

using namespace step;

// --- Which rows a token looks up. A block has a sequence.
constexpr int kRowThreads = 256;

__device__ __forceinline__ int32_t CheckedRow(const StepTables& tables, int table, int64_t row) {
  if (row < 0 || row >= tables.rows[table]) __trap();  // as LibTorch's embedding does: the context is lost
  return static_cast<int32_t>(row);
}

__global__ void __launch_bounds__(kRowThreads) EmbeddingRowsKernel(const __grid_constant__ StepEmbeddingRows a) {
  __shared__ int warp_counts[kRowThreads / 32];
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  int64_t before = a.tables.padding;  // position of the last token that is no padding
  for (int64_t begin = 0; begin < a.length; begin += kRowThreads) {
    const int64_t place = begin + threadIdx.x, token = blockIdx.x * a.length + place;
    const bool inside = place < a.length;
    const int64_t id = inside ? a.ids[token] : a.tables.padding;
    const bool real = id != a.tables.padding;
    const unsigned votes = __ballot_sync(~0u, real);
    if (lane == 0) warp_counts[warp] = __popc(votes);
    __syncthreads();
    int count = __popc(votes & (~0u >> (31 - lane)));
    int all = 0;
    for (int w = 0; w < kRowThreads / 32; ++w) {
      if (w < warp) count += warp_counts[w];
      all += warp_counts[w];
    }
    if (inside) {
      const int64_t* const box = a.boxes + 4 * token;
      const auto side = [](int64_t length) { return min(max(length, int64_t{0}), int64_t{kStepLargestSide}); };
      const int64_t rows[kStepLookups] = {id,
                                          real ? before + count : a.tables.padding,
                                          box[0],
                                          box[1],
                                          box[2],
                                          box[3],
                                          side(box[3] - box[1]),
                                          side(box[2] - box[0])};
#pragma unroll
      for (int lookup = 0; lookup < kStepLookups; ++lookup) {
        a.rows[token * kStepLookups + lookup] = CheckedRow(a.tables, StepTableOf(lookup), rows[lookup]);
      }
    }
    before += all;
    __syncthreads();
  }
}

// --- The sum. A thread has kWidth columns of a token, which are of one spatial table.
constexpr int kThreads = 128;

template <int kWidth>
__global__ void __launch_bounds__(kThreads) EmbeddingSumKernel(const __grid_constant__ StepEmbeddingSum a) {
  const StepTables& tables = a.tables;
  const unsigned of_a_token = static_cast<unsigned>(tables.columns / kWidth);
  const unsigned item = blockIdx.x * kThreads + threadIdx.x;
  const int64_t token = item / of_a_token;
  if (token >= a.tokens) return;
  const int column = static_cast<int>(item % of_a_token) * kWidth;
  const int32_t* const rows = a.rows + token * kStepLookups;
  const int sides = 4 * tables.coordinate;
  const int lookup = column < sides ? 2 + column / tables.coordinate : 6 + (column - sides) / tables.shape;
  const Elements<kWidth> word = Load<kWidth>(tables.table[0] + int64_t{rows[0]} * tables.columns + column);
  const Elements<kWidth> position = Load<kWidth>(tables.table[1] + int64_t{rows[1]} * tables.columns + column);
  const Elements<kWidth> spatial =
      Load<kWidth>(tables.table[StepTableOf(lookup)] + int64_t{rows[lookup]} * StepWidthOf(tables, lookup) + column -
                   StepColumnOf(tables, lookup));
  const Elements<kWidth> type = Load<kWidth>(tables.token_type + column);
  Elements<kWidth> x;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) x.v[i] = word.v[i] + type.v[i] + position.v[i] + spatial.v[i];
  Store(a.x + token * tables.columns + column, x);
}

// --- The gradient.
constexpr int kPiece = 128;  // look-ups of a piece of the sorted list
constexpr int kAddRows = 4;  // of threads, that add up pieces

// A row of any table by one number: those of the tables one after the other. The number behind the last: of none.
__host__ __device__ __forceinline__ uint32_t TableBegin(const StepTables& tables, int table) {
  uint32_t begin = 0;
  for (int before = 0; before < table; ++before) begin += static_cast<uint32_t>(tables.rows[before]);
  return begin;
}

struct Sorting {
  uint32_t *keys, *sorted_keys;        // rows by their number
  uint32_t *lookups, *sorted_lookups;  // 8 token + look-up
  float *first, *last;                 // (pieces, columns): sums of a piece's first and last row, where it has not all
  void* temporary;
  size_t temporary_bytes;
  int64_t bytes;  // of all
};

int64_t Pieces(int64_t lookups) { return (lookups + kPiece - 1) / kPiece; }

int KeyBits(const StepTables& tables) {
  int bits = 1;
  while ((uint64_t{1} << bits) <= TableBegin(tables, kStepTables)) ++bits;
  return bits;
}

const char* Divide(const StepTables& tables, int64_t tokens, void* memory, Sorting* sorting) {
  const int64_t count = tokens * kStepLookups;
  if (count >= int64_t{1} << 31) return "too many tokens";
  int64_t used = 0;
  const auto take = [&](int64_t bytes) {
    void* const part = static_cast<char*>(memory) + used;
    used += (bytes + 255) / 256 * 256;
    return memory == nullptr ? nullptr : part;
  };
  for (uint32_t** array : {&sorting->keys, &sorting->sorted_keys, &sorting->lookups, &sorting->sorted_lookups}) {
    *array = static_cast<uint32_t*>(take(4 * count));
  }
  for (float** array : {&sorting->first, &sorting->last}) {
    *array = static_cast<float*>(take(4 * Pieces(count) * tables.columns));
  }
  sorting->temporary_bytes = 0;
  const cudaError_t status = cub::DeviceRadixSort::SortPairs(
      nullptr, sorting->temporary_bytes, sorting->keys, sorting->sorted_keys, sorting->lookups, sorting->sorted_lookups,
      static_cast<int>(count), 0, KeyBits(tables));
  if (status != cudaSuccess) return cudaGetErrorString(status);
  sorting->temporary = take(static_cast<int64_t>(sorting->temporary_bytes));
  sorting->bytes = used;
  return nullptr;
}

__global__ void __launch_bounds__(kThreads) KeysKernel(const __grid_constant__ StepTables tables, int64_t count,
                                                       const int32_t* rows, uint32_t* keys, uint32_t* lookups) {
  const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at >= count) return;
  const int lookup = static_cast<int>(at % kStepLookups);
  const bool none = lookup < 2 && rows[at] == tables.padding;
  keys[at] = none ? TableBegin(tables, kStepTables)
                  : TableBegin(tables, StepTableOf(lookup)) + static_cast<uint32_t>(rows[at]);
  lookups[at] = static_cast<uint32_t>(at);
}

// Where a row lies.
struct Row {
  float* data;
  int width;
};
__device__ __forceinline__ Row RowOf(const StepTables& tables, uint32_t key) {
  int table = 0;
  uint32_t begin = 0;
  while (key - begin >= static_cast<uint32_t>(tables.rows[table])) {
    begin += static_cast<uint32_t>(tables.rows[table]);
    ++table;
  }
  const int width = StepWidthOf(tables, table < 4 ? table : table + 2);
  return {tables.table[table] + int64_t{key - begin} * width, width};
}

// A block adds up a piece.
__global__ void __launch_bounds__(kThreads) PiecesKernel(const __grid_constant__ StepTables tables, int64_t count,
                                                         const Sorting sorting, const float* __restrict__ dx) {
  __shared__ uint32_t keys[kPiece];
  static_assert(kPiece == kThreads);
  const int64_t begin = int64_t{blockIdx.x} * kPiece;
  const int size = static_cast<int>(min(count - begin, int64_t{kPiece}));
  const uint32_t none = TableBegin(tables, kStepTables);
  __shared__ int64_t sources[kPiece];
  if (static_cast<int>(threadIdx.x) < size) {
    keys[threadIdx.x] = sorting.sorted_keys[begin + threadIdx.x];
    const uint32_t lookup = sorting.sorted_lookups[begin + threadIdx.x];
    sources[threadIdx.x] =
        int64_t{lookup / kStepLookups} * tables.columns + StepColumnOf(tables, static_cast<int>(lookup % kStepLookups));
  }
  const bool continues = begin > 0 && sorting.sorted_keys[begin - 1] == sorting.sorted_keys[begin];
  const bool goes_on =
      begin + size < count && sorting.sorted_keys[begin + size] == sorting.sorted_keys[begin + size - 1];
  __syncthreads();
  for (int from = 0; from < size;) {
    const uint32_t key = keys[from];
    int to = from + 1;
    while (to < size && keys[to] == key) ++to;
    if (key == none) return;  // the last ones
    const Row row = RowOf(tables, key);
    float* target = row.data;
    if (from == 0 && continues) {
      target = sorting.first + int64_t{blockIdx.x} * tables.columns;
    } else if (to == size && goes_on) {
      target = sorting.last + int64_t{blockIdx.x} * tables.columns;
    }
    for (int column = static_cast<int>(threadIdx.x); column < row.width; column += kThreads) {
      float sum = 0;
#pragma unroll 8
      for (int at = from; at < to; ++at) sum += dx[sources[at] + column];
      target[column] = sum;
    }
    from = to;
  }
}

// Adds up the row that begins in a piece and goes on in the next ones.
__global__ void __launch_bounds__(kThreads* kAddRows)
    AddPiecesKernel(const __grid_constant__ StepTables tables, int64_t count, const Sorting sorting) {
  __shared__ float shared[kAddRows][kThreads];
  const int64_t piece = blockIdx.x, end = (piece + 1) * kPiece, pieces = (count + kPiece - 1) / kPiece;
  if (end >= count) return;
  const uint32_t key = sorting.sorted_keys[end - 1];
  if (key == TableBegin(tables, kStepTables) || sorting.sorted_keys[end] != key) return;
  const int64_t begin = piece * kPiece;
  if (begin > 0 && sorting.sorted_keys[begin - 1] == key) return;  // it began before this piece
  // The pieces from the next one to `after` hold the row: a search among their first keys.
  int64_t after = piece + 2, unknown = pieces;
  while (after < unknown) {
    const int64_t middle = (after + unknown) / 2;
    if (sorting.sorted_keys[middle * kPiece] == key) {
      after = middle + 1;
    } else {
      unknown = middle;
    }
  }
  const Row row = RowOf(tables, key);
  for (int base = 0; base < row.width; base += kThreads) {
    const int column = base + static_cast<int>(threadIdx.x);
    float sum = 0;
    if (column < row.width) {
#pragma unroll 8
      for (int64_t next = piece + 1 + threadIdx.y; next < after; next += kAddRows) {
        sum += sorting.first[next * tables.columns + column];
      }
    }
    shared[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < row.width) {
      sum = sorting.last[piece * tables.columns + column];
      for (int part = 0; part < kAddRows; ++part) sum += shared[part][threadIdx.x];
      row.data[column] = sum;
    }
    __syncthreads();
  }
}

}  // namespace

const char* LaunchEmbeddingRows(const StepEmbeddingRows& a, CUstream_st* stream) {
  EmbeddingRowsKernel<<<static_cast<unsigned>(a.batch), kRowThreads, 0, stream>>>(a);
  return LastError();
}

const char* LaunchEmbeddingSum(const StepEmbeddingSum& a, CUstream_st* stream) {
  const StepTables& tables = a.tables;
  const bool wide = tables.columns % 4 == 0 && tables.coordinate % 4 == 0 && tables.shape % 4 == 0;
  const int64_t items = a.tokens * (tables.columns / (wide ? 4 : 1));
  if (items >= int64_t{1} << 32) return "too many tokens";
  if (wide) {
    EmbeddingSumKernel<4><<<Blocks(items, kThreads), kThreads, 0, stream>>>(a);
  } else {
    EmbeddingSumKernel<1><<<Blocks(items, kThreads), kThreads, 0, stream>>>(a);
  }
  return LastError();
}

const char* EmbeddingGradientScratch(const StepTables& tables, int64_t tokens, int64_t* bytes) {
  Sorting sorting{};
  const char* const error = Divide(tables, tokens, nullptr, &sorting);
  *bytes = sorting.bytes;
  return error;
}

const char* LaunchEmbeddingGradient(const StepEmbeddingGradient& a, CUstream_st* stream) {
  const StepTables& tables = a.gradients;
  for (int table = 0; table < kStepTables; ++table) {
    const size_t width = static_cast<size_t>(StepWidthOf(tables, table < 4 ? table : table + 2));
    const cudaError_t status = cudaMemsetAsync(tables.table[table], 0,
                                               static_cast<size_t>(tables.rows[table]) * width * sizeof(float), stream);
    if (status != cudaSuccess) return cudaGetErrorString(status);
  }
  Sorting sorting{};
  if (const char* const error = Divide(tables, a.tokens, a.scratch, &sorting)) return error;
  if (sorting.bytes > a.scratch_bytes) return "too little scratch memory";
  const int64_t count = a.tokens * kStepLookups;
  KeysKernel<<<Blocks(count, kThreads), kThreads, 0, stream>>>(tables, count, a.rows, sorting.keys, sorting.lookups);
  const cudaError_t status = cub::DeviceRadixSort::SortPairs(
      sorting.temporary, sorting.temporary_bytes, sorting.keys, sorting.sorted_keys, sorting.lookups,
      sorting.sorted_lookups, static_cast<int>(count), 0, KeyBits(tables), stream);
  if (status != cudaSuccess) return cudaGetErrorString(status);
  const auto pieces = static_cast<unsigned>(Pieces(count));
  PiecesKernel<<<pieces, kThreads, 0, stream>>>(tables, count, sorting, a.dx);
  AddPiecesKernel<<<pieces, dim3(kThreads, kAddRows), 0, stream>>>(tables, count, sorting);
  return LastError();
}

}  // namespace attnfleet::trainer
