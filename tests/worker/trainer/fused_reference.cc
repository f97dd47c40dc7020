#include "fused_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "worker/trainer/buckets.h"
#include "worker/trainer/model_config.h"

namespace attnfleet::trainer {
namespace {

// One of the three tables of a head: what belongs to a difference of -reach .. reach; further ones are as the
// outermost.
class ValueTable {
 public:
  ValueTable(int buckets, int max_distance, int reach)
      : buckets_(buckets), max_distance_(max_distance), reach_(reach), values_(static_cast<size_t>(2 * reach + 1)) {}

  double& operator[](int64_t difference) {
    return values_[static_cast<size_t>(std::clamp<int64_t>(difference, -reach_, reach_) + reach_)];
  }

  void LookUp(const std::vector<double>& table, int h) {
    for (int d = -reach_; d <= reach_; ++d) (*this)[d] = table[Index(h, d)];
  }
  void AddTo(std::vector<double>& table, int h) {
    for (int d = -reach_; d <= reach_; ++d) table[Index(h, d)] += (*this)[d];
  }

 private:
  size_t Index(int h, int difference) const {
    return static_cast<size_t>(h * buckets_ + RelativePositionBucket(difference, buckets_, max_distance_));
  }

  const int buckets_, max_distance_, reach_;
  std::vector<double> values_;
};

struct ValueTables {
  ValueTable relative{kRelativeBuckets, kRelativeMaxDistance, kRelativeReach};
  ValueTable x{kSpatialBuckets, kSpatialMaxDistance, kSpatialReach};
  ValueTable y{kSpatialBuckets, kSpatialMaxDistance, kSpatialReach};
};

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
  output.drelative.resize(input.relative_table.size());
  output.dx.resize(input.x_table.size());
  output.dy.resize(input.y_table.size());
  std::vector<double> p(static_cast<size_t>(length)), factor(p.size()), gradient(p.size());
  for (int b = 0; b < input.batch; ++b) {
    for (int h = 0; h < input.heads; ++h) {
      ValueTables tables, sums;
      if (!input.relative_table.empty()) tables.relative.LookUp(input.relative_table, h);
      if (!input.x_table.empty()) {
        tables.x.LookUp(input.x_table, h);
        tables.y.LookUp(input.y_table, h);
      }
      const int sequence_head = b * input.heads + h;
      const auto row = [&](auto& tensor, int i) { return tensor.data() + (sequence_head * length + i) * size; };
      const auto token = [&](const std::vector<int64_t>& values, int i) {
        return values[static_cast<size_t>(b * length + i)];
      };
      // Of the key j against the query i.
      const auto p_difference = [&](int i, int j) {
        return input.positions[static_cast<size_t>(j)] - input.positions[static_cast<size_t>(i)];
      };
      const auto difference = [&](const std::vector<int64_t>& values, int i, int j) {
        return token(values, j) - token(values, i);
      };
      for (int i = 0; i < length; ++i) {
        double most = -std::numeric_limits<double>::infinity(), sum = 0;
        for (int j = 0; j < length; ++j) {
          const auto at = static_cast<size_t>(j);
          p[at] = Dot(row(input.q, i), row(input.k, j), size) + tables.relative[p_difference(i, j)] +
                  tables.x[difference(input.x, i, j)] + tables.y[difference(input.y, i, j)];
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
          sums.relative[p_difference(i, j)] += ds;
          sums.x[difference(input.x, i, j)] += ds;
          sums.y[difference(input.y, i, j)] += ds;
        }
      }
      if (!input.relative_table.empty()) sums.relative.AddTo(output.drelative, h);
      if (!input.x_table.empty()) {
        sums.x.AddTo(output.dx, h);
        sums.y.AddTo(output.dy, h);
      }
    }
  }
  return output;
}

}  // namespace attnfleet::trainer
