#ifndef ATTNFLEET_WORKER_TRAINER_ENVIRONMENT_H_
#define ATTNFLEET_WORKER_TRAINER_ENVIRONMENT_H_

#include "worker/trainer/config.h"
#include "worker/trainer/cuda/contract.h"
#include "worker/trainer/events.h"

namespace attnfleet::trainer {

// What this process runs on. `cuda` null: the CPU.
Environment DescribeEnvironment(CudaDevice* cuda, Precision precision, uint64_t seed);

// The largest resident set of this process so far; 0 if the kernel does not say.
int64_t PeakResidentBytes();

// Physical memory of the host, and what is free of it without reclaiming.
int64_t HostMemoryBytes();
int64_t FreeHostMemoryBytes();

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_ENVIRONMENT_H_
