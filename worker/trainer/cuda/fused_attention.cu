// Which kernels run, and the dropout mask for tests.

#include "worker/trainer/cuda/fused_launch.cuh"

namespace attnfleet::trainer {
namespace {

using namespace fused;

__global__ void KeepMask(const FusedShape shape, const FusedDropout dropout, uint8_t* keep) {
  const int query = blockIdx.x, h = blockIdx.y, b = blockIdx.z;
  const int sequence_head = b * shape.heads + h;
  uint8_t* const row = keep + (int64_t{sequence_head} * shape.length + query) * shape.length;
  for (int key = threadIdx.x; key < shape.length; key += blockDim.x) {
    row[key] = DropoutBits(dropout, sequence_head, query, key) < dropout.threshold;
  }
}

}  // namespace

const char* FusedForward(FusedPath path, const FusedForwardArguments& arguments, CUstream_st* stream) {
  return path == FusedPath::kHopper ? HopperForward(arguments, stream) : AmpereForward(arguments, stream);
}

const char* FusedBackward(FusedPath path, const FusedBackwardArguments& arguments, CUstream_st* stream) {
  const bool hopper = path == FusedPath::kHopper;
  const char* error = hopper ? HopperQueryGradients(arguments, stream) : AmpereQueryGradients(arguments, stream);
  if (error != nullptr) return error;
  error = hopper ? HopperKeyGradients(arguments, stream) : AmpereKeyGradients(arguments, stream);
  if (error != nullptr || arguments.tables.partial == nullptr) return error;
  return AmpereTableGradients(arguments, stream);
}

const char* FusedKeepMask(const FusedShape& shape, const FusedDropout& dropout, uint8_t* keep, CUstream_st* stream) {
  const dim3 grid(static_cast<unsigned>(shape.length), static_cast<unsigned>(shape.heads),
                  static_cast<unsigned>(shape.batch));
  KeepMask<<<grid, 128, 0, stream>>>(shape, dropout, keep);
  const cudaError_t status = cudaGetLastError();
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}

}  // namespace attnfleet::trainer
