#include "worker/trainer/attention/gradient_layout.h"

#include <ATen/ops/empty_strided.h>

#include <vector>

namespace attnfleet::trainer {

at::Tensor WithGradientLayout(const at::Tensor& output) {
  if (!output.requires_grad()) return output;
  output.register_hook([strides = output.strides().vec()](const at::Tensor& gradient) {
    if (gradient.strides() == at::IntArrayRef(strides)) return gradient;
    return at::empty_strided(gradient.sizes(), strides, gradient.options()).copy_(gradient);
  });
  return output;
}

}  // namespace attnfleet::trainer
