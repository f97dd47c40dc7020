#ifndef ATTNFLEET_WORKER_TRAINER_WARMUP_H_
#define ATTNFLEET_WORKER_TRAINER_WARMUP_H_

#include <algorithm>
#include <cmath>

namespace attnfleet::trainer {

// When warm-up is over: after `at_least` steps, as soon as two neighbouring windows of kWindow steps ran at the same
// speed to kTolerance, and after `limit` steps in any case. Fed with the time of each window, whose steps the caller
// brackets with synchronisations.
class Warmup {
 public:
  // Five steps outweigh the synchronisation at their end; lazy loading of kernels, the allocator's growth and the
  // choice of cuBLAS and cuDNN algorithms are over within the first one or two windows and cost far more than 1 %.
  static constexpr int kWindow = 5;
  // Repetitions of a run agree within 1 % where the GPU is the bound: a steadier start would buy nothing.
  static constexpr double kTolerance = 0.01;

  Warmup(int at_least, int limit) : at_least_(at_least), limit_(std::max(at_least, limit)) {}

  // How many steps the next window has; 0: warm-up is over.
  int NextWindow() const {
    if (steps_ >= limit_ || (steps_ >= at_least_ && stable_)) return 0;
    return std::min(kWindow, limit_ - steps_);
  }

  void WindowDone(int steps, double seconds) {
    steps_ += steps;
    if (steps < kWindow) return;  // cut short by the limit: too few to judge
    stable_ = last_seconds_ > 0 && std::abs(seconds - last_seconds_) < kTolerance * last_seconds_;
    last_seconds_ = seconds;
  }

  int steps() const { return steps_; }
  bool stable() const { return stable_; }

 private:
  const int at_least_;
  const int limit_;
  int steps_ = 0;
  double last_seconds_ = 0;
  bool stable_ = false;
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_WARMUP_H_
