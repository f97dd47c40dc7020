// Flash Attention v2 as LibTorch carries it: no bias and no padding mask.

#include <ATen/ops/_scaled_dot_product_flash_attention.h>

#include "worker/trainer/attention/contract.h"
#include "worker/trainer/attention/filters.h"

namespace attnfleet::trainer {
namespace {

std::optional<std::string> Refuse(const AttentionProblem& problem) {
  return FirstRefusal("flash2", problem, {NoBias, NoPadding, Bf16Only, HeadSizeUpTo256, HeadSizeInEights, Ampere});
}

StepTensors Prepare(const AttentionProblem&, const BiasSource&) { return {}; }

at::Tensor Forward(const AttentionInput& input) {
  return std::get<0>(at::_scaled_dot_product_flash_attention(input.q, input.k, input.v, input.dropout));
}

}  // namespace

extern const Backend kFlash2;
const Backend kFlash2 = {"flash2", "Flash Attention v2, LibTorch's kernels called directly; no bias, no padding",
                         false,    true,
                         Refuse,   Prepare,
                         Forward};

}  // namespace attnfleet::trainer
