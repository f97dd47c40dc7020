#include "worker/trainer/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cmath>

namespace attnfleet::trainer {
namespace {

// Adam and AdamW of Kingma & Ba and of Loshchilov & Hutter, in double precision, for one number.
struct Reference {
  bool decoupled_decay;
  double rate;
  double value;
  double average = 0, square = 0;
  int step = 0;

  void Step(double gradient) {
    ++step;
    if (decoupled_decay) value -= rate * 0.01 * value;
    average = 0.9 * average + 0.1 * gradient;
    square = 0.999 * square + 0.001 * gradient * gradient;
    const double corrected = average / (1 - std::pow(0.9, step));
    value -= rate * corrected / (std::sqrt(square / (1 - std::pow(0.999, step))) + 1e-8);
  }
};

class Optimizers : public testing::TestWithParam<Optimizer> {};

TEST_P(Optimizers, FollowTheFormula) {
  at::Tensor parameter = at::randn({5, 7}).requires_grad_();
  std::vector<Reference> references;
  for (int64_t i = 0; i < parameter.numel(); ++i) {
    references.push_back({GetParam() == Optimizer::kAdamW, 0.02, parameter.data_ptr<float>()[i]});
  }
  AdamOptimizer optimizer(GetParam(), 0.02, {parameter});
  for (int step = 0; step < 10; ++step) {
    parameter.mutable_grad() = at::randn({5, 7}) * 3;
    for (size_t i = 0; i < references.size(); ++i) references[i].Step(parameter.grad().data_ptr<float>()[i]);
    optimizer.Step();
    optimizer.DropGradients();
    ASSERT_FALSE(parameter.grad().defined());
  }
  for (size_t i = 0; i < references.size(); ++i) {
    EXPECT_NEAR(parameter.data_ptr<float>()[i], references[i].value, 2e-6);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Optimizers, testing::Values(Optimizer::kAdam, Optimizer::kAdamW));

}  // namespace
}  // namespace attnfleet::trainer
