#ifndef ATTNFLEET_WORKER_TRAINER_STEP_REFERENCE_H_
#define ATTNFLEET_WORKER_TRAINER_STEP_REFERENCE_H_

#include <memory>

#include "worker/trainer/cuda/step_kernels.h"

namespace attnfleet::trainer {

// The fused step's operations on the CPU, as plain loops: what the kernels are compared with.
std::unique_ptr<StepKernels> MakeReferenceKernels();

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_STEP_REFERENCE_H_
