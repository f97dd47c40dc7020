#include "server/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>

namespace attnfleet::server {
namespace {

constexpr size_t kMostForEveryResample = 5;  // 5^5 = 3,125
constexpr int kResamples = 2000;
constexpr uint64_t kSeed = 1;

size_t EveryResample(size_t values) {
  size_t count = 1;
  for (size_t i = 0; i < values; ++i) count *= values;
  return count;
}

}  // namespace

Interval BootstrapInterval(const std::vector<double>& values,
                           const std::function<double(std::vector<double>)>& statistic) {
  const size_t size = values.size();
  if (size < 2) return {};
  std::vector<double> found;
  std::vector<double> resample(size);
  if (size <= kMostForEveryResample) {
    for (size_t number = 0; number < EveryResample(size); ++number) {
      size_t digits = number;  // in base `size`: which value stands where
      for (double& value : resample) {
        value = values[digits % size];
        digits /= size;
      }
      found.push_back(statistic(resample));
    }
  } else {
    std::mt19937_64 random(kSeed);  // NOLINT: reproducible on purpose; its numbers are the same everywhere
    for (int i = 0; i < kResamples; ++i) {
      for (double& value : resample) value = values[random() % size];
      found.push_back(statistic(resample));
    }
  }
  std::sort(found.begin(), found.end());
  const double last = static_cast<double>(found.size() - 1);
  return {found[static_cast<size_t>(std::floor(0.025 * last))], found[static_cast<size_t>(std::ceil(0.975 * last))]};
}

}  // namespace attnfleet::server
