#ifndef ATTNFLEET_WORKER_TRAINER_ENVIRONMENT_H_
#define ATTNFLEET_WORKER_TRAINER_ENVIRONMENT_H_

#include <string>
#include <string_view>

#include "worker/trainer/config.h"
#include "worker/trainer/cuda/contract.h"
#include "worker/trainer/events.h"

namespace attnfleet::trainer {

// What this process runs on. `cuda` null: the CPU.
Environment DescribeEnvironment(CudaDevice* cuda, Precision precision, uint64_t seed);

// The first device of a CUDA_VISIBLE_DEVICES, if that is a MIG instance: "MIG-...", else "". CUDA itself does not tell
// an instance's UUID.
std::string FirstMigInstance(std::string_view cuda_visible_devices);

// The largest resident set of this process so far; 0 if the kernel does not say.
int64_t PeakResidentBytes();

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_ENVIRONMENT_H_
