// cuDNN's fused attention. A bias goes in as a dense mask, without a gradient.

#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>

#include "worker/trainer/attention/contract.h"
#include "worker/trainer/attention/dense_mask.h"
#include "worker/trainer/attention/filters.h"
#include "worker/trainer/attention/gradient_layout.h"

namespace attnfleet::trainer {
namespace {

std::optional<std::string> Refuse(const AttentionProblem& problem) {
  return FirstRefusal(
      "cudnn", problem,
      {NoBiasGradients, Bf16Only, HeadSizeOfCudnn, HeadSizeInEights, MoreThanOneToken, NoMaskWithHalfATile, Ampere});
}

StepTensors Prepare(const AttentionProblem& problem, const BiasSource& source) {
  StepTensors step;
  step.mask = DenseMask(problem, source, MaskRows::kAll);  // cuDNN broadcasts over batch and heads, not over queries
  return step;
}

at::Tensor Forward(const AttentionInput& input) {
  return WithGradientLayout(
      std::get<0>(at::_scaled_dot_product_cudnn_attention(input.q, input.k, input.v, MaskArgument(input),
                                                          /*compute_log_sumexp=*/true, input.dropout)));
}

}  // namespace

extern const Backend kCudnn;
const Backend kCudnn = {
    "cudnn", "cuDNN's fused attention, called directly; a bias goes in as a dense mask", false, true, Refuse, Prepare,
    Forward};

}  // namespace attnfleet::trainer
