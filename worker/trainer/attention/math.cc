// LibTorch's scaled_dot_product_attention as plain operations, the path that its dispatcher falls back to.

#include <ATen/ops/_scaled_dot_product_attention_math.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "worker/trainer/attention/contract.h"
#include "worker/trainer/attention/dense_mask.h"

namespace attnfleet::trainer {
namespace {

std::optional<std::string> Refuse(const AttentionProblem&) { return std::nullopt; }

StepTensors Prepare(const AttentionProblem& problem, const BiasSource& source) {
  StepTensors step;
  step.mask = DenseMask(problem, source);
  return step;
}

at::Tensor Forward(const AttentionInput& input) {
  // The dispatcher leaves autocast before it gets here; else the operation's own fp32 steps would go back to bf16.
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  return std::get<0>(
      at::_scaled_dot_product_attention_math(input.q, input.k, input.v, MaskArgument(input), input.dropout));
}

}  // namespace

extern const Backend kMath;
const Backend kMath = {
    "math", "LibTorch's attention in plain operations (bf16 in fp32 inside); a bias goes in as a dense mask",
    true,   true,
    Refuse, Prepare,
    Forward};

}  // namespace attnfleet::trainer
