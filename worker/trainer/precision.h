#ifndef ATTNFLEET_WORKER_TRAINER_PRECISION_H_
#define ATTNFLEET_WORKER_TRAINER_PRECISION_H_

#include <c10/core/ScalarType.h>

#include <optional>
#include <string>

#include "worker/trainer/config.h"

namespace attnfleet::trainer {

// kAuto: bf16-mixed on CUDA, fp32 on the CPU.
Precision ResolvePrecision(Precision precision, bool cuda);

// As in the flags and results: "bf16-mixed".
const char* PrecisionName(Precision precision);

// Why the device cannot, in one line, or nothing.
std::optional<std::string> RefusePrecision(Precision precision, bool cuda, int compute_capability);

// Of the parameters, and with them of the optimiser's state.
at::ScalarType WeightType(Precision precision);
// Of q, k and v.
at::ScalarType ComputeType(Precision precision);

// Whether fp32 products of this process may use TF32, in matrix products and cuDNN: with kTf32 and never else, though
// PyTorch lets cuDNN by default.
void SetFp32Products(Precision precision);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_PRECISION_H_
