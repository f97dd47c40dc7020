#ifndef ATTNFLEET_WORKER_TRAINER_OPTIMIZER_H_
#define ATTNFLEET_WORKER_TRAINER_OPTIMIZER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "worker/trainer/config.h"

namespace attnfleet::trainer {

// torch.optim.Adam and AdamW with PyTorch's defaults: betas 0.9 and 0.999, epsilon 1e-8, weight decay 0 and 0.01, in
// LibTorch's fused kernels.
class AdamOptimizer {
 public:
  AdamOptimizer(Optimizer kind, double learning_rate, std::vector<at::Tensor> parameters);

  // Updates every parameter in place from its gradient; each must have one.
  void Step();
  // Drops the gradients, as zero_grad does by default.
  void DropGradients();

  // Of its own tensors.
  int64_t Bytes() const;

 private:
  const Optimizer kind_;
  const double learning_rate_;
  std::vector<at::Tensor> parameters_;
  std::vector<at::Tensor> averages_;  // of the gradients
  std::vector<at::Tensor> squares_;   // averages of their squares
  std::vector<at::Tensor> steps_;     // fp32 scalars on the parameters' device, as the kernels want them
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_OPTIMIZER_H_
