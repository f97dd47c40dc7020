#include "worker/trainer/confidence.h"

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>

namespace attnfleet::trainer {
namespace {

constexpr size_t kLeastBatches = 10;
// Student's t, 0.975 quantile, for 9 to 18 degrees of freedom.
constexpr std::array<double, 10> kQuantiles = {2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101};

}  // namespace

double RelativeHalfWidth(const std::vector<double>& step_seconds) {
  if (step_seconds.size() < kLeastStepsForConfidence) return std::numeric_limits<double>::infinity();
  const size_t length = step_seconds.size() / kLeastBatches;
  const size_t batches = step_seconds.size() / length;
  std::vector<double> means;
  auto begin = step_seconds.end() - static_cast<std::ptrdiff_t>(batches * length);
  for (; begin != step_seconds.end(); begin += static_cast<std::ptrdiff_t>(length)) {
    const double sum = std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(length), 0.0);
    means.push_back(sum / static_cast<double>(length));
  }
  const double count = static_cast<double>(batches);
  const double mean = std::accumulate(means.begin(), means.end(), 0.0) / count;
  double squares = 0;
  for (const double value : means) squares += (value - mean) * (value - mean);
  return kQuantiles[batches - kLeastBatches] * std::sqrt(squares / (count - 1) / count) / mean;
}

SpeedInterval ConfidenceInterval(double iterations_per_second, const std::vector<double>& step_seconds) {
  const double half = RelativeHalfWidth(step_seconds);
  if (!(half < 1)) return {};
  return {iterations_per_second / (1 + half), iterations_per_second / (1 - half)};
}

}  // namespace attnfleet::trainer
