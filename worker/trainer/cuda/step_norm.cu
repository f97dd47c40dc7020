// The residual stream: bias, dropout, addition, norm, dropout in one kernel each way. A warp has a row, which stays in
// its registers.

#include <type_traits>

#include "worker/trainer/cuda/step_common.cuh"

namespace attnfleet::trainer {
namespace {

using namespace step;

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;

// The first column of a lane's part, of kWidth columns, of a row.
template <int kWidth>
__device__ __forceinline__ int Column(int part) {
  return (part * 32 + static_cast<int>(threadIdx.x % 32)) * kWidth;
}

// What is added to an input is of the stream; what stands alone, a sum of embeddings, is fp32.
template <class Stream, bool kInput>
using Residual = std::conditional_t<kInput, Stream, float>;

template <class Low, class Stream, int kWidth, int kParts, bool kInput>
__global__ void __launch_bounds__(kThreads) NormKernel(const StepNorm a) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= a.rows) return;
  const int64_t begin = row * a.columns;
  const Drops in(a.input_dropout), out(a.output_dropout);
  Elements<kWidth> z[kParts];
  float sum = 0;
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    const int column = Column<kWidth>(part);
    if (column >= a.columns) continue;
    z[part] = Load<kWidth>(static_cast<const Residual<Stream, kInput>*>(a.residual) + begin + column);
    if constexpr (kInput) {
      Elements<kWidth> x = Load<kWidth>(static_cast<const Low*>(a.input) + begin + column);
      const Elements<kWidth> bias = Load<kWidth>(a.bias + column);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) x.v[i] += bias.v[i];
      in.Apply(x, begin + column);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) z[part].v[i] += x.v[i];
    }
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sum += z[part].v[i];
  }
  const float columns = static_cast<float>(a.columns);
  const float mean = WarpSum(sum) / columns;
  float squares = 0;
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    if (Column<kWidth>(part) >= a.columns) continue;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) squares += (z[part].v[i] - mean) * (z[part].v[i] - mean);
  }
  const float inverse_deviation = 1 / sqrtf(WarpSum(squares) / columns + a.epsilon);
  if (threadIdx.x % 32 == 0) a.inverse_deviation[row] = inverse_deviation;
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    const int column = Column<kWidth>(part);
    if (column >= a.columns) continue;
    const Elements<kWidth> weight = Load<kWidth>(a.weight + column), shift = Load<kWidth>(a.shift + column);
    Elements<kWidth> y;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      z[part].v[i] = (z[part].v[i] - mean) * inverse_deviation;
      y.v[i] = z[part].v[i] * weight.v[i] + shift.v[i];
    }
    Store(static_cast<Low*>(a.normed) + begin + column, z[part]);
    out.Apply(y, begin + column);
    if (a.y != nullptr) Store(static_cast<Stream*>(a.y) + begin + column, y);
    if (a.low_y != nullptr) Store(static_cast<Low*>(a.low_y) + begin + column, y);
  }
}

// Puts the block's sums of one kind at its place among the partial ones.
template <int kWidth, int kParts>
__device__ __forceinline__ void StoreSums(const Elements<kWidth> (&sums)[kParts], float* shared, int columns,
                                          float* partial) {
  constexpr int kMost = 32 * kWidth * kParts;
  __syncthreads();
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    Store(shared + static_cast<int>(threadIdx.x / 32) * kMost + Column<kWidth>(part), sums[part]);
  }
  __syncthreads();
  for (int column = static_cast<int>(threadIdx.x); column < columns; column += kThreads) {
    float sum = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) sum += shared[warp * kMost + column];
    partial[column] = sum;
  }
}

template <class Low, class Stream, int kWidth, int kParts, bool kInput>
__global__ void __launch_bounds__(kThreads) NormBackwardKernel(const StepNormBackward a) {
  __shared__ float4 shared[kWarps * 32 * kWidth * kParts / 4];
  const Drops in(a.input_dropout), out(a.output_dropout);
  const float columns = static_cast<float>(a.columns);
  Elements<kWidth> dweight[kParts] = {}, dshift[kParts] = {}, dbias[kParts] = {};
  for (int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32; row < a.rows; row += gridDim.x * kWarps) {
    const int64_t begin = row * a.columns;
    const float inverse_deviation = a.inverse_deviation[row];
    Elements<kWidth> g[kParts], normed[kParts];
    float sum = 0, product = 0;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const int column = Column<kWidth>(part);
      if (column >= a.columns) continue;
      Elements<kWidth> dy{};
      if (a.dy != nullptr) dy = Load<kWidth>(static_cast<const Stream*>(a.dy) + begin + column);
      if (a.low_dy != nullptr) {
        const Elements<kWidth> low = Load<kWidth>(static_cast<const Low*>(a.low_dy) + begin + column);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) dy.v[i] += low.v[i];
      }
      out.Apply(dy, begin + column);
      normed[part] = Load<kWidth>(static_cast<const Low*>(a.normed) + begin + column);
      const Elements<kWidth> weight = Load<kWidth>(a.weight + column);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        dweight[part].v[i] += dy.v[i] * normed[part].v[i];
        dshift[part].v[i] += dy.v[i];
        g[part].v[i] = dy.v[i] * weight.v[i];
        sum += g[part].v[i];
        product += g[part].v[i] * normed[part].v[i];
      }
    }
    sum = WarpSum(sum) / columns;
    product = WarpSum(product) / columns;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const int column = Column<kWidth>(part);
      if (column >= a.columns) continue;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        g[part].v[i] = inverse_deviation * (g[part].v[i] - sum - normed[part].v[i] * product);
      }
      Store(static_cast<Residual<Stream, kInput>*>(a.dz) + begin + column, g[part]);
      if constexpr (kInput) {
        in.Apply(g[part], begin + column);
        Store(static_cast<Low*>(a.dinput) + begin + column, g[part]);
      }
#pragma unroll
      for (int i = 0; i < kWidth; ++i) dbias[part].v[i] += g[part].v[i];
    }
  }
  float* const own = a.scratch + int64_t{blockIdx.x} * a.columns;
  const int64_t kind = kStepSumBlocks * a.columns;
  float* const memory = reinterpret_cast<float*>(shared);
  StoreSums(dweight, memory, a.columns, own);
  StoreSums(dshift, memory, a.columns, own + kind);
  StoreSums(dbias, memory, a.columns, own + 2 * kind);
}

// Calls launch.operator()<Low, Stream, width, parts, input>().
template <class Low, class Stream, bool kInput, class Launch>
void WithParts(int columns, const Launch& launch) {
  if (columns % 8 != 0) {
    launch.template operator()<Low, Stream, 1, 32, kInput>();
  } else if (columns <= 768) {
    launch.template operator()<Low, Stream, 8, 3, kInput>();
  } else {
    launch.template operator()<Low, Stream, 8, 4, kInput>();
  }
}

template <class Low, class Stream, class Launch>
void WithInput(int columns, bool input, const Launch& launch) {
  input ? WithParts<Low, Stream, true>(columns, launch) : WithParts<Low, Stream, false>(columns, launch);
}

template <class Launch>
void WithTemplate(StepType type, StepType stream, int columns, bool input, const Launch& launch) {
  if (type == StepType::kFp32) {
    WithInput<float, float>(columns, input, launch);
  } else if (stream == StepType::kFp32) {
    WithInput<Bf16, float>(columns, input, launch);
  } else {
    WithInput<Bf16, Bf16>(columns, input, launch);
  }
}

}  // namespace

const char* LaunchNorm(const StepNorm& a, CUstream_st* stream) {
  if (a.columns > kStepMostColumns) return "rows are too wide";
  if (a.rows == 0) return nullptr;
  WithTemplate(a.type, a.stream, a.columns, a.input != nullptr,
               [&]<class Low, class Stream, int kWidth, int kParts, bool kInput>() {
                 NormKernel<Low, Stream, kWidth, kParts, kInput><<<Blocks(a.rows, kWarps), kThreads, 0, stream>>>(a);
               });
  return LastError();
}

const char* LaunchNormBackward(const StepNormBackward& a, CUstream_st* stream) {
  if (a.columns > kStepMostColumns) return "rows are too wide";
  const unsigned blocks = std::min(static_cast<unsigned>(kStepSumBlocks), std::max(1u, Blocks(a.rows, kWarps)));
  WithTemplate(a.type, a.stream, a.columns, a.dinput != nullptr,
               [&]<class Low, class Stream, int kWidth, int kParts, bool kInput>() {
                 NormBackwardKernel<Low, Stream, kWidth, kParts, kInput><<<blocks, kThreads, 0, stream>>>(a);
               });
  if (const char* const error = LastError()) return error;
  return AddPartialSums({a.scratch, static_cast<int>(blocks), a.columns, {a.dweight, a.dshift, a.dbias}}, 3, stream);
}

}  // namespace attnfleet::trainer
