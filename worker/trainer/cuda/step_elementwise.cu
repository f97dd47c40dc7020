// What the fused step does element by element: gelu, dropout, sums of columns, Adam.

#include "worker/trainer/cuda/step_common.cuh"

namespace attnfleet::trainer {
namespace {

using namespace step;

constexpr int kThreads = 128;
constexpr int kRowsInFlight = 4;  // that a thread loads before it uses the first

__global__ void BeginPassKernel(StepState* state) { ++state->passes; }

__global__ void BeginUpdateKernel(StepState* state, double beta1, double beta2) {
  const auto updates = static_cast<double>(++state->updates);
  state->average_correction = static_cast<float>(1 - pow(beta1, updates));
  state->square_correction = static_cast<float>(sqrt(1 - pow(beta2, updates)));
}

// --- Matrices whose columns have sums: a thread has kWidth columns and goes down the rows, with blockIdx.y the first.

template <int kWidth>
__device__ __forceinline__ int OwnColumn() {
  return static_cast<int>(blockIdx.x * kThreads + threadIdx.x) * kWidth;
}

// Phi(x) = (1 + erf(x / sqrt 2)) / 2 and x phi(x).
struct Normal {
  float below, slope_part;
};

__device__ __forceinline__ Normal NormalAt(float x, float) {
  return {0.5f * (1 + erff(x * 0.70710678f)), x * 0.39894228f * __expf(-0.5f * x * x)};
}

// Where the result is rounded to bf16: Abramowitz and Stegun 7.1.26, whose error is below 1.5e-7 in erf. The
// exponential is the density's too.
__device__ __forceinline__ Normal NormalAt(float x, Bf16) {
  const float bell = __expf(-0.5f * x * x);
  const float t = __fdividef(1, fmaf(0.23164189f, fabsf(x), 1));
  float tail = fmaf(t, 0.53070271f, -0.72657602f);
  tail = fmaf(t, tail, 0.71070687f);
  tail = fmaf(t, tail, -0.14224837f);
  tail = fmaf(t, tail, 0.12741479f);
  tail *= t * bell;
  return {x < 0 ? tail : 1 - tail, x * 0.39894228f * bell};
}

template <class Low, int kWidth>
__global__ void __launch_bounds__(kThreads) GeluKernel(const StepGelu a) {
  const int column = OwnColumn<kWidth>();
  if (column >= a.columns) return;
  const Elements<kWidth> bias = Load<kWidth>(a.bias + column);
  // All are loaded before the first is stored: the compiler cannot know that they lie apart.
  for (int64_t first = blockIdx.y; first < a.rows; first += kRowsInFlight * gridDim.y) {
    Elements<kWidth> x[kRowsInFlight];
#pragma unroll
    for (int k = 0; k < kRowsInFlight; ++k) {
      const int64_t row = first + k * gridDim.y;
      if (row < a.rows) x[k] = Load<kWidth>(static_cast<const Low*>(a.x) + row * a.columns + column);
    }
#pragma unroll
    for (int k = 0; k < kRowsInFlight; ++k) {
      const int64_t row = first + k * gridDim.y;
      if (row >= a.rows) continue;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float shifted = x[k].v[i] + bias.v[i];
        x[k].v[i] = shifted * NormalAt(shifted, Low{}).below;
      }
      Store(static_cast<Low*>(a.y) + row * a.columns + column, x[k]);
    }
  }
}

template <class Low, int kWidth>
__global__ void __launch_bounds__(kThreads) GeluBackwardKernel(const StepGeluBackward a) {
  const int column = OwnColumn<kWidth>();
  if (column >= a.columns) return;
  const Elements<kWidth> bias = Load<kWidth>(a.bias + column);
  Elements<kWidth> sums{};
  constexpr int kRows = 2;
  for (int64_t first = blockIdx.y; first < a.rows; first += kRows * gridDim.y) {
    Elements<kWidth> x[kRows], dx[kRows];
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      const int64_t row = first + k * gridDim.y, at = row * a.columns + column;
      if (row >= a.rows) continue;
      x[k] = Load<kWidth>(static_cast<const Low*>(a.x) + at);
      dx[k] = Load<kWidth>(static_cast<const Low*>(a.dy) + at);
    }
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      const int64_t row = first + k * gridDim.y, at = row * a.columns + column;
      if (row >= a.rows) continue;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const float shifted = x[k].v[i] + bias.v[i];
        const Normal normal = NormalAt(shifted, Low{});
        x[k].v[i] = shifted * normal.below;
        dx[k].v[i] *= normal.below + normal.slope_part;
        sums.v[i] += dx[k].v[i];
      }
      Store(static_cast<Low*>(a.y) + at, x[k]);
      Store(static_cast<Low*>(a.dx) + at, dx[k]);
    }
  }
  Store(a.scratch + int64_t{blockIdx.y} * a.columns + column, sums);
}

template <class Type, int kWidth>
__global__ void __launch_bounds__(kThreads) ColumnSumsKernel(const StepColumnSums a) {
  const int column = OwnColumn<kWidth>();
  if (column >= a.columns) return;
  Elements<kWidth> sums{};
#pragma unroll 8
  for (int64_t row = blockIdx.y; row < a.rows; row += gridDim.y) {
    const Elements<kWidth> x = Load<kWidth>(static_cast<const Type*>(a.x) + row * a.columns + column);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sums.v[i] += x.v[i];
  }
  Store(a.scratch + int64_t{blockIdx.y} * a.columns + column, sums);
}

constexpr int kSumColumns = 32, kSumRows = 8;

__global__ void __launch_bounds__(kSumColumns* kSumRows) AddPartialSumsKernel(const PartialSums a) {
  __shared__ float shared[kSumRows][kSumColumns];
  const int column = static_cast<int>(blockIdx.x * kSumColumns + threadIdx.x);
  const float* const partial = a.partial + int64_t{blockIdx.y} * kStepSumBlocks * a.columns;
  // Not by an index, which would put them into memory.
  float* const sums = blockIdx.y == 0 ? a.sums[0] : blockIdx.y == 1 ? a.sums[1] : a.sums[2];
  float sum = 0;
  if (column < a.columns) {
#pragma unroll 4
    for (int block = static_cast<int>(threadIdx.y); block < a.blocks; block += kSumRows) {
      sum += partial[int64_t{block} * a.columns + column];
    }
  }
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= a.columns || sums == nullptr) return;
  for (int row = 1; row < kSumRows; ++row) sum += shared[row][threadIdx.x];
  sums[column] = sum;
}

// --- Dropout: a thread has eight elements.
template <class From, class To>
__global__ void __launch_bounds__(kThreads) DropKernel(const StepDrop a) {
  const int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * 8;
  if (first >= a.count) return;
  const Drops one(a.first), two(a.second);
  const From* const from = static_cast<const From*>(a.x) + first;
  To* const to = static_cast<To*>(a.y) + first;
  if (first + 8 <= a.count) {
    Elements<8> x = Load<8>(from);
    one.Apply(x, first);
    two.Apply(x, first);
    Store(to, x);
    return;
  }
  for (int64_t i = 0; first + i < a.count; ++i) {
    Elements<1> x = Load<1>(from + i);
    one.Apply(x, first + i);
    two.Apply(x, first + i);
    Store(to + i, x);
  }
}

// --- Adam: a thread has eight weights, which are of one kind.
template <class Low>
__global__ void __launch_bounds__(kThreads) AdamKernel(const StepAdam a) {
  const int64_t first = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * 8;
  if (first >= a.count) return;
  Elements<8> weight = Load<8>(a.weights + first), average = Load<8>(a.averages + first);
  Elements<8> square = Load<8>(a.squares + first);
  const Elements<8> gradient = first < a.low_gradient_count ? Load<8>(static_cast<const Low*>(a.low_gradients) + first)
                                                            : Load<8>(a.gradients + (first - a.low_gradient_count));
  const float rate = a.learning_rate / a.state->average_correction, correction = a.state->square_correction;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    float g = gradient.v[i], w = weight.v[i];
    if (a.decoupled_decay) {
      w -= a.learning_rate * a.weight_decay * w;
    } else {
      g += a.weight_decay * w;
    }
    average.v[i] = a.beta1 * average.v[i] + a.rest1 * g;
    square.v[i] = a.beta2 * square.v[i] + a.rest2 * g * g;
    weight.v[i] = w - rate * average.v[i] / (sqrtf(square.v[i]) / correction + a.epsilon);
  }
  Store(a.weights + first, weight);
  Store(a.averages + first, average);
  Store(a.squares + first, square);
  if (a.low_weights != nullptr && first < a.low_count) Store(static_cast<Low*>(a.low_weights) + first, weight);
}

// Calls launch.operator()<type, width>().
template <class Launch>
void WithTemplate(StepType type, int columns, const Launch& launch) {
  const bool wide = columns % 8 == 0;
  if (type == StepType::kFp32) {
    wide ? launch.template operator()<float, 8>() : launch.template operator()<float, 1>();
  } else {
    wide ? launch.template operator()<Bf16, 8>() : launch.template operator()<Bf16, 1>();
  }
}

dim3 Grid(int columns, int width, int64_t rows) {
  return {Blocks(columns, int64_t{kThreads} * width),
          static_cast<unsigned>(std::clamp<int64_t>(rows, 1, kStepSumBlocks)), 1};
}

}  // namespace

const char* step::AddPartialSums(const PartialSums& sums, int kinds, cudaStream_t stream) {
  const dim3 grid(Blocks(sums.columns, kSumColumns), static_cast<unsigned>(kinds));
  AddPartialSumsKernel<<<grid, dim3(kSumColumns, kSumRows), 0, stream>>>(sums);
  return LastError();
}

const char* LaunchBeginPass(StepState* state, CUstream_st* stream) {
  BeginPassKernel<<<1, 1, 0, stream>>>(state);
  return LastError();
}

const char* LaunchBeginUpdate(StepState* state, double beta1, double beta2, CUstream_st* stream) {
  BeginUpdateKernel<<<1, 1, 0, stream>>>(state, beta1, beta2);
  return LastError();
}

const char* LaunchGelu(const StepGelu& a, CUstream_st* stream) {
  if (a.rows == 0) return nullptr;
  WithTemplate(a.type, a.columns, [&]<class Low, int kWidth>() {
    // It has no sums, so as many blocks as there are rows for.
    const dim3 grid(Blocks(a.columns, int64_t{kThreads} * kWidth), std::min(Blocks(a.rows, kRowsInFlight), 65535u));
    GeluKernel<Low, kWidth><<<grid, kThreads, 0, stream>>>(a);
  });
  return LastError();
}

const char* LaunchGeluBackward(const StepGeluBackward& a, CUstream_st* stream) {
  unsigned blocks = 0;
  WithTemplate(a.type, a.columns, [&]<class Low, int kWidth>() {
    const dim3 grid = Grid(a.columns, kWidth, a.rows);
    blocks = grid.y;
    GeluBackwardKernel<Low, kWidth><<<grid, kThreads, 0, stream>>>(a);
  });
  if (const char* const error = LastError()) return error;
  return AddPartialSums({a.scratch, static_cast<int>(blocks), a.columns, {a.dbias, nullptr, nullptr}}, 1, stream);
}

const char* LaunchColumnSums(const StepColumnSums& a, CUstream_st* stream) {
  unsigned blocks = 0;
  WithTemplate(a.type, a.columns, [&]<class Type, int kWidth>() {
    const dim3 grid = Grid(a.columns, kWidth, a.rows);
    blocks = grid.y;
    ColumnSumsKernel<Type, kWidth><<<grid, kThreads, 0, stream>>>(a);
  });
  if (const char* const error = LastError()) return error;
  return AddPartialSums({a.scratch, static_cast<int>(blocks), a.columns, {a.sums, nullptr, nullptr}}, 1, stream);
}

const char* LaunchDrop(const StepDrop& a, CUstream_st* stream) {
  if (a.count == 0) return nullptr;
  const unsigned blocks = Blocks(a.count, int64_t{8} * kThreads);
  const bool from = a.from == StepType::kFp32, to = a.to == StepType::kFp32;
  if (from && to) {
    DropKernel<float, float><<<blocks, kThreads, 0, stream>>>(a);
  } else if (from) {
    DropKernel<float, Bf16><<<blocks, kThreads, 0, stream>>>(a);
  } else if (to) {
    DropKernel<Bf16, float><<<blocks, kThreads, 0, stream>>>(a);
  } else {
    DropKernel<Bf16, Bf16><<<blocks, kThreads, 0, stream>>>(a);
  }
  return LastError();
}

const char* LaunchAdam(const StepAdam& a, CUstream_st* stream) {
  const unsigned blocks = Blocks(a.count, int64_t{8} * kThreads);
  if (a.type == StepType::kFp32) {
    AdamKernel<float><<<blocks, kThreads, 0, stream>>>(a);
  } else {
    AdamKernel<Bf16><<<blocks, kThreads, 0, stream>>>(a);
  }
  return LastError();
}

}  // namespace attnfleet::trainer
