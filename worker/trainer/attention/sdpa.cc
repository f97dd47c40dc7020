// LibTorch's scaled_dot_product_attention, which chooses among its flash, memory-efficient, cuDNN and plain kernels at
// run time. A bias goes in as a dense mask.

#include <ATen/TensorOperators.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <cmath>

#include "worker/trainer/attention/contract.h"
#include "worker/trainer/bias.h"

namespace attnfleet::trainer {
namespace {

std::optional<std::string> Refuse(const AttentionProblem&) { return std::nullopt; }

// One mask for all layers: bias / sqrt(D) plus padding, (B or 1, H or 1, S or 1, S) in q's type. None where there is
// neither, so that the kernels that refuse every mask remain possible.
StepTensors Prepare(const AttentionProblem& problem, const BiasSource& source) {
  StepTensors step;
  at::Tensor mask;
  if (problem.spatial_bias) mask = SpatialBias(source);
  if (problem.relative_bias) {
    const at::Tensor relative = RelativeBias(source);
    mask = mask.defined() ? mask.add_(relative) : relative;
  }
  if (mask.defined()) mask.div_(std::sqrt(static_cast<double>(problem.head_size)));
  if (problem.padded) mask = mask.defined() ? mask + AdditiveMask(source) : AdditiveMask(source);
  if (mask.defined())
    step.mask = mask.to(problem.type).expand({problem.batch, problem.heads, problem.sequence_length, -1});
  return step;
}

at::Tensor Forward(const AttentionInput& input) {
  std::optional<at::Tensor> mask;
  if (input.step.mask.defined()) mask = input.step.mask;
  return at::scaled_dot_product_attention(input.q, input.k, input.v, mask, input.dropout);
}

}  // namespace

extern const Backend kSdpa;
const Backend kSdpa = {
    "sdpa", "LibTorch's scaled_dot_product_attention; a bias goes in as a dense mask", true, true, Refuse, Prepare,
    Forward};

}  // namespace attnfleet::trainer
