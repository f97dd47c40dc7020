#include "fused_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "worker/trainer/buckets.h"
#include "worker/trainer/model_config.h"

namespace attnfleet::trainer {
namespace {

// A head's values of all differences up to `reach`; further ones are as the outermost.
std::vector<double> ValueTable(const std::vector<double>& table, int h, int buckets, int max_distance, int reach) {
  std::vector<double> values;
  for (int d = -reach; d <= reach; ++d) {
    values.push_back(table[static_cast<size_t>(h * buckets + RelativePositionBucket(d, buckets, max_distance))]);
  }
  return values;
}

double Value(const std::vector<double>& values, int64_t difference) {
  const auto reach = static_cast<int64_t>(values.size() / 2);
  return values[static_cast<size_t>(std::clamp(difference, -reach, reach) + reach)];
}

double Dot(const double* a, const double* b, int count) {
  double sum = 0;
  for (int d = 0; d < count; ++d) sum += a[d] * b[d];
  return sum;
}

void Add(double* to, double factor, const double* from, int count) {
  for (int d = 0; d < count; ++d) to[d] += factor * from[d];
}

}  // namespace

FusedReferenceOutput FusedReference(const FusedReferenceInput& input) {
  const int length = input.length, size = input.head_size;
  const double root = std::sqrt(static_cast<double>(size)), kept = input.dropout.threshold / 65536.0;
  FusedReferenceOutput output;
  for (std::vector<double>* tensor : {&output.out, &output.dq, &output.dk, &output.dv}) tensor->resize(input.q.size());
  std::vector<double> p(static_cast<size_t>(length)), factor(p.size()), gradient(p.size());
  for (int b = 0; b < input.batch; ++b) {
    for (int h = 0; h < input.heads; ++h) {
      std::vector<double> relative, x, y;
      if (!input.relative_table.empty()) {
        relative = ValueTable(input.relative_table, h, kRelativeBuckets, kRelativeMaxDistance, kRelativeReach);
        x = ValueTable(input.x_table, h, kSpatialBuckets, kSpatialMaxDistance, kSpatialReach);
        y = ValueTable(input.y_table, h, kSpatialBuckets, kSpatialMaxDistance, kSpatialReach);
      }
      const int sequence_head = b * input.heads + h;
      const auto row = [&](auto& tensor, int i) { return tensor.data() + (sequence_head * length + i) * size; };
      const auto token = [&](const std::vector<int64_t>& values, int i) {
        return values[static_cast<size_t>(b * length + i)];
      };
      for (int i = 0; i < length; ++i) {
        double most = -std::numeric_limits<double>::infinity(), sum = 0;
        for (int j = 0; j < length; ++j) {
          const auto at = static_cast<size_t>(j);
          p[at] = Dot(row(input.q, i), row(input.k, j), size);
          if (!relative.empty()) {
            p[at] += Value(relative, input.positions[at] - input.positions[static_cast<size_t>(i)]) +
                     Value(x, token(input.x, j) - token(input.x, i)) + Value(y, token(input.y, j) - token(input.y, i));
          }
          p[at] /= root;
          if (token(input.mask, j) == 0) p[at] = -std::numeric_limits<double>::infinity();
          most = std::max(most, p[at]);
        }
        if (std::isinf(most)) continue;  // no key: the output and all gradients are 0
        for (double& value : p) sum += value = std::exp(value - most);
        double delta = 0;
        for (int j = 0; j < length; ++j) {
          const auto at = static_cast<size_t>(j);
          p[at] /= sum;
          const bool keep = DropoutBits(input.dropout, static_cast<uint32_t>(sequence_head), static_cast<uint32_t>(i),
                                        static_cast<uint32_t>(j)) < input.dropout.threshold;
          factor[at] = keep ? 1 / kept : 0;
          Add(row(output.out, i), p[at] * factor[at], row(input.v, j), size);
          gradient[at] = factor[at] * Dot(row(input.dout, i), row(input.v, j), size);
          delta += p[at] * gradient[at];
        }
        for (int j = 0; j < length; ++j) {
          const auto at = static_cast<size_t>(j);
          const double ds = p[at] * (gradient[at] - delta) / root;
          Add(row(output.dq, i), ds, row(input.k, j), size);
          Add(row(output.dk, j), ds, row(input.q, i), size);
          Add(row(output.dv, j), p[at] * factor[at], row(input.dout, i), size);
        }
      }
    }
  }
  return output;
}

}  // namespace attnfleet::trainer
