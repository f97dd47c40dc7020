#include "worker/trainer/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <utility>

namespace attnfleet::trainer {

AdamOptimizer::AdamOptimizer(Optimizer kind, double learning_rate, std::vector<at::Tensor> parameters)
    : kind_(kind), learning_rate_(learning_rate), parameters_(std::move(parameters)) {
  for (const at::Tensor& parameter : parameters_) {
    averages_.push_back(at::zeros_like(parameter));
    squares_.push_back(at::zeros_like(parameter));
    steps_.push_back(at::zeros({}, parameter.options().dtype(at::kFloat).requires_grad(false)));
  }
}

void AdamOptimizer::Step() {
  const at::NoGradGuard no_gradient;
  std::vector<at::Tensor> gradients;
  gradients.reserve(parameters_.size());
  for (const at::Tensor& parameter : parameters_) gradients.push_back(parameter.grad());
  at::_foreach_add_(steps_, 1);
  const double weight_decay = kind_ == Optimizer::kAdamW ? 0.01 : 0.0;
  if (kind_ == Optimizer::kAdamW) {
    at::_fused_adamw_(parameters_, gradients, averages_, squares_, {}, steps_, learning_rate_, 0.9, 0.999, weight_decay,
                      1e-8, /*amsgrad=*/false, /*maximize=*/false);
  } else {
    at::_fused_adam_(parameters_, gradients, averages_, squares_, {}, steps_, learning_rate_, 0.9, 0.999, weight_decay,
                     1e-8, /*amsgrad=*/false, /*maximize=*/false);
  }
}

void AdamOptimizer::DropGradients() {
  for (at::Tensor& parameter : parameters_) parameter.mutable_grad().reset();
}

int64_t AdamOptimizer::Bytes() const {
  size_t bytes = 0;
  for (const auto* tensors : {&averages_, &squares_, &steps_}) {
    for (const at::Tensor& tensor : *tensors) bytes += tensor.nbytes();
  }
  return static_cast<int64_t>(bytes);
}

}  // namespace attnfleet::trainer
