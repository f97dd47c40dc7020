// Hugging Face's LayoutLMv3SelfAttention, operation by operation, so that it also keeps the same tensors for the
// backward pass: its memory is the yardstick of every other backend.

#include <ATen/TensorOperators.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/dropout.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>

#include <cmath>
#include <limits>

#include "worker/trainer/attention/contract.h"
#include "worker/trainer/bias.h"

namespace attnfleet::trainer {
namespace {

constexpr double kCogViewAlpha = 32;

std::optional<std::string> Refuse(const AttentionProblem&) { return std::nullopt; }

// Both biases (B, H, S, S) and the mask (B, 1, 1, S), in the tables' type: fp32 also under autocast. Without padding
// there is no mask, as in Hugging Face since version 5: scores then stay bf16 up to the softmax.
StepTensors Prepare(const AttentionProblem& problem, const BiasSource& source) {
  StepTensors step;
  if (problem.relative_bias) {
    // Hugging Face looks it up for every sequence alike.
    step.relative_bias = RelativeBias(source).expand({problem.batch, -1, -1, -1}).contiguous();
  }
  if (problem.spatial_bias) step.spatial_bias = SpatialBias(source);
  if (problem.padded) step.mask = AdditiveMask(source);
  if (problem.padded && problem.type == at::kBFloat16 &&
      !at::autocast::is_autocast_enabled(step.mask.device().type())) {
    // All of the model is bf16: the mask is the lowest number of that.
    step.mask = step.mask.clamp_min(static_cast<float>(std::numeric_limits<c10::BFloat16>::lowest())).to(at::kBFloat16);
  }
  return step;
}

at::Tensor Forward(const AttentionInput& input) {
  const double root = std::sqrt(static_cast<double>(input.q.size(3)));
  at::Tensor scores = at::matmul(input.q / root, input.k.transpose(-1, -2));
  const StepTensors& step = input.step;
  if (step.relative_bias.defined() && step.spatial_bias.defined()) {
    scores.add_((step.relative_bias + step.spatial_bias) / root);
  } else if (step.relative_bias.defined()) {
    scores.add_(step.relative_bias / root);
  } else if (step.spatial_bias.defined()) {  // Hugging Face ignores a spatial bias without a relative one
    scores.add_(step.spatial_bias / root);
  }
  if (step.mask.defined()) scores = scores + step.mask;  // fp32 from here on under autocast, as the mask is
  // cogview_attention: the same softmax by way of a division, which is exact since alpha is a power of two.
  at::Tensor scaled = scores / kCogViewAlpha;
  scores = (scaled - scaled.amax(-1, /*keepdim=*/true)) * kCogViewAlpha;
  scaled.reset();
  const at::Tensor probabilities = at::dropout(at::softmax(scores, -1), input.dropout, /*train=*/input.dropout > 0);
  return at::matmul(probabilities, input.v);
}

}  // namespace

extern const Backend kEager;
const Backend kEager = {"eager", "Hugging Face's attention as written: scores, softmax and probabilities in memory",
                        true,    true,
                        Refuse,  Prepare,
                        Forward};

}  // namespace attnfleet::trainer
