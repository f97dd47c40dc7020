#include "worker/trainer/buckets.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace attnfleet::trainer {

int64_t RelativePositionBucket(int64_t relative_position, int buckets, int max_distance) {
  const int side = buckets / 2;  // one side for either sign
  const int exact = side / 2;
  const int64_t first = relative_position > 0 ? side : 0;
  const int64_t distance = std::abs(relative_position);
  if (distance < exact) return first + distance;
  const float exact_distances = static_cast<float>(exact);
  const float logarithm = std::log(static_cast<float>(distance) / exact_distances);
  const float scale = static_cast<float>(std::log(static_cast<double>(max_distance) / exact));
  const int64_t step = static_cast<int64_t>(logarithm / scale * static_cast<float>(side - exact));
  return first + std::min<int64_t>(exact + step, side - 1);
}

std::vector<int64_t> BucketTable(int64_t max_relative, int buckets, int max_distance) {
  std::vector<int64_t> table;
  table.reserve(static_cast<size_t>(2 * max_relative + 1));
  for (int64_t relative = -max_relative; relative <= max_relative; ++relative) {
    table.push_back(RelativePositionBucket(relative, buckets, max_distance));
  }
  return table;
}

}  // namespace attnfleet::trainer
