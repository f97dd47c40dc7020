#ifndef ATTNFLEET_WORKER_TRAINER_STEP_TIMER_H_
#define ATTNFLEET_WORKER_TRAINER_STEP_TIMER_H_

#include <chrono>
#include <utility>
#include <vector>

#include "worker/trainer/cuda/contract.h"

namespace attnfleet::trainer {

// Durations of the timed steps: device events on CUDA, where the host runs ahead, else the clock.
class StepTimer {
 public:
  explicit StepTimer(CudaDevice* cuda) : cuda_(cuda) {}

  // At the beginning and after every step.
  void Mark() {
    if (cuda_ != nullptr) {
      cuda_->Mark();
      return;
    }
    const auto now = std::chrono::steady_clock::now();
    if (begun_) seconds_.push_back(std::chrono::duration<double>(now - last_).count());
    last_ = now;
    begun_ = true;
  }

  // Of the steps that are over by now. Waits for nothing.
  const std::vector<double>& Completed() { return cuda_ != nullptr ? cuda_->CompletedIntervals() : seconds_; }

  // Of all steps. Waits for the last one.
  std::vector<double> TakeAll() { return cuda_ != nullptr ? cuda_->TakeIntervals() : std::move(seconds_); }

 private:
  CudaDevice* const cuda_;
  bool begun_ = false;
  std::chrono::steady_clock::time_point last_;
  std::vector<double> seconds_;
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_STEP_TIMER_H_
