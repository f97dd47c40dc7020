#ifndef ATTNFLEET_WORKER_TRAINER_CUDA_STEP_KERNELS_H_
#define ATTNFLEET_WORKER_TRAINER_CUDA_STEP_KERNELS_H_

// What the fused step computes beside matrix products and attention: structures over memory and one interface, which
// ../step/reference.cc implements on the CPU and step_*.cu on the GPU. No LibTorch and no CUDA header here.
//
// "low" is the type of what goes into matrix products and comes out of them; statistics and sums are fp32. The residual
// stream is fp32 too, or low, which is another computation and has another name ("stream" below). A matrix is (rows,
// columns), its rows side by side. Nothing is allocated, nothing waits for the device, and every sum has an order of
// its own: two runs are bit-equal.

#include <cstdint>

#include "worker/trainer/cuda/step_random.h"

namespace attnfleet::trainer {

enum class StepType { kFp32, kBf16 };

// On the device, so that a step that is replayed as a CUDA graph finds new values each time.
struct StepState {
  uint64_t seed;
  uint64_t passes;           // forward passes that have begun
  uint64_t updates;          // of the weights
  float average_correction;  // Adam's 1 - beta1^updates
  float square_correction;   // and the root of 1 - beta2^updates
};

// Drops nothing by default. Sites tell the dropouts of a step apart.
struct StepDropout {
  const StepState* state = nullptr;
  uint32_t site = 0;
  uint32_t threshold = kStepKeepsAll;
};

// Scratch memory of the calls that sum over rows, in bytes, for this many columns.
inline constexpr int64_t kStepSumBlocks = 264;  // whatever the GPU, so that sums are the same everywhere
inline int64_t StepScratchBytes(int64_t columns) { return 3 * kStepSumBlocks * columns * 4; }

// z = input_dropout(input + bias) + residual, y = output_dropout(norm(z)).
struct StepNorm {
  StepType type, stream;
  int64_t rows;
  int columns;
  float epsilon;
  const void* input;     // low, or null: then z is the residual
  const float* bias;     // (columns); null without an input
  const void* residual;  // stream; fp32 without an input
  StepDropout input_dropout, output_dropout;
  const float *weight, *shift;  // (columns)
  void* normed;                 // low: z less its mean, over its deviation; for the backward pass
  float* inverse_deviation;     // (rows); too
  void* y;                      // stream; either may be null
  void* low_y;
};

struct StepNormBackward {
  StepType type, stream;
  int64_t rows;
  int columns;
  StepDropout input_dropout, output_dropout;
  const float* weight;
  const void* normed;
  const float* inverse_deviation;
  const void* dy;  // of y, stream, and of low_y; either may be null
  const void* low_dy;
  void* dz;      // the residual's gradient: stream; fp32 without an input
  void* dinput;  // low; null where there was no input
  float* dbias;  // sums of the input's gradient, or, without an input, of dz; may be null
  float *dweight, *dshift;
  float* scratch;
};

// y = gelu(x + bias), low.
struct StepGelu {
  StepType type;
  int64_t rows;
  int columns;
  const void* x;
  const float* bias;
  void* y;
};

// Also the y of the forward pass once more, to the last bit, so that it need not be kept.
struct StepGeluBackward {
  StepType type;
  int64_t rows;
  int columns;
  const void* x;
  const float* bias;
  const void* dy;
  void* y;   // may be x
  void* dx;  // may be dy
  float* dbias;
  float* scratch;
};

// y = second(first(x)), which is its own backward pass.
struct StepDrop {
  StepType from, to;
  int64_t count;
  const void* x;
  void* y;
  StepDropout first, second;
};

struct StepColumnSums {
  StepType type;
  int64_t rows;
  int columns;
  const void* x;
  float* sums;
  float* scratch;
};

// The tables that a token's embedding is the sum of, and its eight look-ups in them.
inline constexpr int kStepTables = 6;   // words, positions, x, y, heights, widths
inline constexpr int kStepLookups = 8;  // word, position, x0, y0, x1, y1, height, width

struct StepTables {
  int columns;            // of a token; of words and positions
  int coordinate, shape;  // columns of x and y, of heights and widths
  int rows[kStepTables];
  float* table[kStepTables];  // or their gradients
  const float* token_type;    // row 0, which all tokens have
  int padding;                // the row of words and positions that has no gradient
};

// The table of a look-up, and its first column in the token's.
ATTNFLEET_HOST_DEVICE int StepTableOf(int lookup) {
  return lookup < 2 ? lookup : lookup < 6 ? 2 + lookup % 2 : lookup - 2;
}
ATTNFLEET_HOST_DEVICE int StepWidthOf(const StepTables& tables, int lookup) {
  return lookup < 2 ? tables.columns : lookup < 6 ? tables.coordinate : tables.shape;
}
ATTNFLEET_HOST_DEVICE int StepColumnOf(const StepTables& tables, int lookup) {
  if (lookup < 2) return 0;
  if (lookup < 6) return (lookup - 2) * tables.coordinate;
  return 4 * tables.coordinate + (lookup - 6) * tables.shape;
}

inline constexpr int kStepLargestSide = 1023;  // of a box, whatever the tables hold

struct StepEmbeddingRows {
  StepTables tables;  // of which the sizes are read
  int64_t batch, length;
  const int64_t* ids;    // (batch, length)
  const int64_t* boxes;  // (batch, length, 4)
  int32_t* rows;         // (batch, length, 8): the row of each look-up
};

struct StepEmbeddingSum {
  StepTables tables;
  int64_t tokens;
  const int32_t* rows;
  float* x;  // (tokens, columns)
};

struct StepEmbeddingGradient {
  StepTables gradients;  // overwritten, but for token_type
  int64_t tokens;
  const int32_t* rows;
  const float* dx;
  void* scratch;
  int64_t scratch_bytes;
};

// Adam over all parameters. The gradients of the first `low_gradient_count` are low, those of the others fp32; the
// first `low_count` have a copy in the low type. All counts are multiples of kStepAlignment.
inline constexpr int64_t kStepAlignment = 64;

// The widest row that a norm takes.
inline constexpr int kStepMostColumns = 1024;

struct StepAdam {
  StepType type;
  const StepState* state;
  float learning_rate, weight_decay, beta1, beta2, epsilon;
  float rest1, rest2;  // 1 - beta, to the last bit
  bool decoupled_decay;
  int64_t count, low_gradient_count, low_count;
  float* weights;
  void* low_weights;  // null: no copy
  const void* low_gradients;
  const float* gradients;  // of the weight low_gradient_count and those behind it
  float *averages, *squares;
};

class StepKernels {
 public:
  virtual ~StepKernels() = default;

  // Each counts in the state: dropouts are new ones, Adam's corrections those of its next update.
  virtual void BeginPass(StepState* state) = 0;
  virtual void BeginUpdate(StepState* state, double beta1, double beta2) = 0;
  virtual void Norm(const StepNorm& arguments) = 0;
  virtual void NormBackward(const StepNormBackward& arguments) = 0;
  virtual void Gelu(const StepGelu& arguments) = 0;
  virtual void GeluBackward(const StepGeluBackward& arguments) = 0;
  virtual void Drop(const StepDrop& arguments) = 0;
  virtual void ColumnSums(const StepColumnSums& arguments) = 0;
  virtual void EmbeddingRows(const StepEmbeddingRows& arguments) = 0;
  virtual void EmbeddingSum(const StepEmbeddingSum& arguments) = 0;
  virtual int64_t EmbeddingScratchBytes(const StepTables& tables, int64_t tokens) = 0;
  virtual void EmbeddingGradient(const StepEmbeddingGradient& arguments) = 0;
  virtual void Adam(const StepAdam& arguments) = 0;
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_CUDA_STEP_KERNELS_H_
