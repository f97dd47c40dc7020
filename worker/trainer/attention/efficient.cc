// LibTorch's memory-efficient attention (CUTLASS). A bias goes in as a dense mask.

#include <ATen/ops/_scaled_dot_product_efficient_attention.h>

#include "worker/trainer/attention/contract.h"
#include "worker/trainer/attention/dense_mask.h"
#include "worker/trainer/attention/filters.h"

namespace attnfleet::trainer {
namespace {

std::optional<std::string> Refuse(const AttentionProblem& problem) {
  return FirstRefusal("efficient", problem, {HeadSizeInEights});
}

StepTensors Prepare(const AttentionProblem& problem, const BiasSource& source) {
  StepTensors step;
  step.mask = ExpandedDenseMask(problem, source);
  return step;
}

at::Tensor Forward(const AttentionInput& input) {
  return std::get<0>(at::_scaled_dot_product_efficient_attention(input.q, input.k, input.v, MaskArgument(input),
                                                                 /*compute_log_sumexp=*/true, input.dropout));
}

}  // namespace

extern const Backend kEfficient;
const Backend kEfficient = {
    "efficient", "LibTorch's memory-efficient attention (CUTLASS), called directly; a bias goes in as a dense mask",
    false,       true,
    Refuse,      Prepare,
    Forward};

}  // namespace attnfleet::trainer
