#include "worker/trainer/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace attnfleet::trainer {

double Quantile(std::vector<double> sample, double p) {
  std::sort(sample.begin(), sample.end());
  const double position = p * static_cast<double>(sample.size() - 1);
  const size_t below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sample.size() - 1);
  return std::lerp(sample[below], sample[above], position - static_cast<double>(below));
}

}  // namespace attnfleet::trainer
