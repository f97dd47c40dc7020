#ifndef ATTNFLEET_WORKER_TRAINER_CONFIDENCE_H_
#define ATTNFLEET_WORKER_TRAINER_CONFIDENCE_H_

#include <vector>

namespace attnfleet::trainer {

// Fewer timed steps have no confidence interval.
inline constexpr int kLeastStepsForConfidence = 20;

// Half the width of the 95 % confidence interval of the mean step time, as a part of that mean; infinite where there
// are too few steps.
//
// Neighbouring steps are alike (clocks, temperature, the host's load), so the n steps are cut into b = 10 to 19 batches
// of k = n / 10 neighbours, whose means m_i are nearly independent once k passes the reach of that likeness:
//   half width = t(0.975, b - 1) * sqrt(sum (m_i - m)^2 / (b - 1) / b),  m = mean of the m_i
// The n % k oldest steps are left out. What drifts over the whole run, or differs between runs, it cannot see.
double RelativeHalfWidth(const std::vector<double>& step_seconds);

// An interval of it/s, or zeros where it is unknown.
struct SpeedInterval {
  double low = 0;
  double high = 0;

  // Known, and no wider than this part of the speed.
  bool Within(double part, double iterations_per_second) const {
    return low > 0 && high - low <= part * iterations_per_second;
  }
};

// Around the speed of the whole window: the interval of 1 / step time.
SpeedInterval ConfidenceInterval(double iterations_per_second, const std::vector<double>& step_seconds);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_CONFIDENCE_H_
