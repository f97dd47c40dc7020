#include "worker/trainer/attention/dense_mask.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

#include "worker/trainer/bias.h"

namespace attnfleet::trainer {
namespace {

constexpr int64_t kRowMultiple = 8;
// Elements of an fp32 intermediate: 256 MiB.
constexpr int64_t kMostElements = int64_t{1} << 26;
// No exponential of it is above 0 beside a real key's. The lowest float is -inf in bf16; and where every key is
// padding, a kernel that works with exp2 rounds log2(e) times the mask twice, and the difference must not overflow
// either: NaN in that row's gradients. (There eager is uniform, and this is not: nobody reads such a row.)
constexpr double kMasked = -1e6;

// The same of sequences [begin, begin + count).
BiasSource Narrow(const BiasSource& source, int64_t begin, int64_t count) {
  BiasSource part = source;
  part.boxes = source.boxes.narrow(0, begin, count);
  part.attention_mask = source.attention_mask.narrow(0, begin, count);
  return part;
}

// The mask in fp32 (fp64 where the tables are), rows as they come.
at::Tensor Sum(const AttentionProblem& problem, const BiasSource& source) {
  at::Tensor bias;
  if (problem.spatial_bias) bias = SpatialBias(source);
  if (problem.relative_bias) bias = bias.defined() ? bias.add_(RelativeBias(source)) : RelativeBias(source);
  if (bias.defined()) bias.div_(std::sqrt(static_cast<double>(problem.head_size)));
  if (!problem.padded) return bias;
  const at::Tensor padding = AdditiveMask(source).clamp_min_(kMasked);
  return bias.defined() ? bias + padding : padding;
}

}  // namespace

at::Tensor DenseMask(const AttentionProblem& problem, const BiasSource& given, MaskRows rows) {
  const bool biased = problem.relative_bias || problem.spatial_bias;
  if (!biased && !problem.padded) return {};
  BiasSource source = given;
  for (at::Tensor* table : {&source.relative_table, &source.x_table, &source.y_table}) {
    if (table->defined() && table->scalar_type() == at::kBFloat16) *table = table->to(at::kFloat);
  }
  const int64_t length = problem.sequence_length;
  const int64_t row = (length + kRowMultiple - 1) / kRowMultiple * kRowMultiple;
  if (problem.bias_gradients) {
    return at::constant_pad_nd(Sum(problem, source).to(problem.type), {0, row - length}).narrow(-1, 0, length);
  }
  const int64_t batch = problem.spatial_bias || problem.padded ? problem.batch : 1;
  const int64_t heads = biased ? problem.heads : 1;
  const int64_t queries = biased || rows == MaskRows::kAll ? length : 1;
  const at::Tensor buffer = at::empty({batch, heads, queries, row}, source.boxes.options().dtype(problem.type));
  buffer.narrow(-1, length, row - length).zero_();  // a kernel may read it, if only to throw it away
  const at::Tensor mask = buffer.narrow(-1, 0, length);
  const int64_t step = std::clamp<int64_t>(kMostElements / (heads * queries * length), 1, batch);
  for (int64_t begin = 0; begin < batch; begin += step) {
    const int64_t count = std::min(step, batch - begin);
    mask.narrow(0, begin, count).copy_(Sum(problem, Narrow(source, begin, count)));
  }
  return mask;
}

at::Tensor ExpandedDenseMask(const AttentionProblem& problem, const BiasSource& source) {
  const at::Tensor mask = DenseMask(problem, source);
  if (!mask.defined()) return mask;
  return mask.expand({problem.batch, problem.heads, problem.sequence_length, problem.sequence_length});
}

std::optional<at::Tensor> MaskArgument(const AttentionInput& input) {
  if (!input.step.mask.defined()) return std::nullopt;
  return input.step.mask;
}

}  // namespace attnfleet::trainer
