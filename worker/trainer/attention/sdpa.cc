// LibTorch's scaled_dot_product_attention, which chooses among its flash, memory-efficient, cuDNN and plain kernels at
// run time. A bias goes in as a dense mask.

#include <ATen/Context.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include "worker/trainer/attention/contract.h"
#include "worker/trainer/attention/dense_mask.h"
#include "worker/trainer/attention/filters.h"
#include "worker/trainer/attention/gradient_layout.h"

namespace attnfleet::trainer {
namespace {

std::optional<std::string> Refuse(const AttentionProblem&) { return std::nullopt; }

StepTensors Prepare(const AttentionProblem& problem, const BiasSource& source) {
  // The dispatcher of LibTorch 2.11 does not know what cuDNN gets wrong without a word.
  const bool trap = FirstRefusal("cudnn", problem, {NoBiasGradients, NoMaskWithHalfATile}) != std::nullopt;
  at::globalContext().setSDPUseCuDNN(!trap);
  StepTensors step;
  step.mask = ExpandedDenseMask(problem, source);
  return step;
}

at::Tensor Forward(const AttentionInput& input) {
  return WithGradientLayout(
      at::scaled_dot_product_attention(input.q, input.k, input.v, MaskArgument(input), input.dropout));
}

}  // namespace

extern const Backend kSdpa;
const Backend kSdpa = {
    "sdpa", "LibTorch's scaled_dot_product_attention, which chooses a kernel; not cuDNN's where that would be wrong",
    true,   true,
    Refuse, Prepare,
    Forward};

}  // namespace attnfleet::trainer
