#ifndef ATTNFLEET_WORKER_TRAINER_TRAINING_H_
#define ATTNFLEET_WORKER_TRAINER_TRAINING_H_

#include <functional>
#include <string>

#include "worker/trainer/attention/contract.h"
#include "worker/trainer/config.h"
#include "worker/trainer/cuda/contract.h"
#include "worker/trainer/events.h"
#include "worker/trainer/gpu_watch.h"

namespace attnfleet::trainer {

// How a run talks to its surroundings.
struct RunHooks {
  std::function<void(const Environment&, int64_t parameter_count)> started;
  std::function<void(const Progress&)> progress;        // at most five times a second
  std::function<bool()> stop_requested;                 // asked before each step
  std::function<void(const std::string&)> notice = {};  // for people; may be empty
};

// Trains as the configuration says and measures it. `cuda` null: on the CPU. Precision kAuto is resolved here. A
// `watch` records what else goes on on the GPU. Never throws: whatever goes wrong is an outcome with its reason.
RunResult RunTraining(const Config& config, const Backend& backend, CudaDevice* cuda, const RunHooks& hooks,
                      GpuWatch* watch = nullptr);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_TRAINING_H_
