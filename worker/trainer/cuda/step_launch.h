#ifndef ATTNFLEET_WORKER_TRAINER_CUDA_STEP_LAUNCH_H_
#define ATTNFLEET_WORKER_TRAINER_CUDA_STEP_LAUNCH_H_

// The fused step's kernels as plain functions. Each returns null, or what CUDA says is wrong; they only queue.

#include "worker/trainer/cuda/step_kernels.h"

struct CUstream_st;  // cudaStream_t points to it

namespace attnfleet::trainer {

const char* LaunchBeginPass(StepState* state, CUstream_st* stream);
const char* LaunchBeginUpdate(StepState* state, double beta1, double beta2, CUstream_st* stream);
const char* LaunchNorm(const StepNorm& arguments, CUstream_st* stream);
const char* LaunchNormBackward(const StepNormBackward& arguments, CUstream_st* stream);
const char* LaunchGelu(const StepGelu& arguments, CUstream_st* stream);
const char* LaunchGeluBackward(const StepGeluBackward& arguments, CUstream_st* stream);
const char* LaunchDrop(const StepDrop& arguments, CUstream_st* stream);
const char* LaunchColumnSums(const StepColumnSums& arguments, CUstream_st* stream);
const char* LaunchEmbeddingRows(const StepEmbeddingRows& arguments, CUstream_st* stream);
const char* LaunchEmbeddingSum(const StepEmbeddingSum& arguments, CUstream_st* stream);
const char* EmbeddingGradientScratch(const StepTables& tables, int64_t tokens, int64_t* bytes);
const char* LaunchEmbeddingGradient(const StepEmbeddingGradient& arguments, CUstream_st* stream);
const char* LaunchAdam(const StepAdam& arguments, CUstream_st* stream);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_CUDA_STEP_LAUNCH_H_
