#ifndef ATTNFLEET_WORKER_TRAINER_ATTENTION_GRADIENT_LAYOUT_H_
#define ATTNFLEET_WORKER_TRAINER_ATTENTION_GRADIENT_LAYOUT_H_

#include <ATen/core/Tensor.h>

namespace attnfleet::trainer {

// Gives the backward pass of the operation that made `output` a gradient with the output's strides, copying one that
// has others. LibTorch 2.11 keeps cuDNN's backward graphs by the shapes and strides of q, k and v alone: a gradient
// laid out unlike that of the first backward pass with these shapes gives wrong dq, dk and dv without a word
// (GpuAttention.GradientsDoNotDependOnTheLayoutOfTheirOwn).
at::Tensor WithGradientLayout(const at::Tensor& output);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_ATTENTION_GRADIENT_LAYOUT_H_
