#include "worker/trainer/bias.h"

#include <ATen/TensorOperators.h>

#include <limits>

namespace attnfleet::trainer {
namespace {

// `positions` (B, S), `table` (H, buckets) -> (B, H, S, S), entry [b, h, i, j] for positions[b, j] - positions[b, i].
at::Tensor LookUp(const at::Tensor& positions, const at::Tensor& buckets, const at::Tensor& table) {
  const int64_t largest = buckets.size(0) / 2;
  const at::Tensor difference = positions.unsqueeze(-2) - positions.unsqueeze(-1);
  const at::Tensor bucket = buckets.index({difference.add_(largest)});
  return table.t().index({bucket}).permute({0, 3, 1, 2}).contiguous();
}

}  // namespace

at::Tensor RelativeBias(const BiasSource& source) {
  return LookUp(source.positions.unsqueeze(0), source.relative_buckets, source.relative_table);
}

at::Tensor SpatialBias(const BiasSource& source) {
  const at::Tensor x = source.boxes.select(-1, 0);
  const at::Tensor y = source.boxes.select(-1, 3);
  return LookUp(x, source.spatial_buckets, source.x_table).add_(LookUp(y, source.spatial_buckets, source.y_table));
}

at::Tensor AdditiveMask(const BiasSource& source) {
  const at::Tensor masked = 1 - source.attention_mask.unsqueeze(1).unsqueeze(1);
  return masked.to(at::kFloat) * std::numeric_limits<float>::lowest();
}

}  // namespace attnfleet::trainer
