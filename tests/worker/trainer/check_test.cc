#include "worker/trainer/check.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>

#include "small_model.h"
#include "worker/trainer/attention/backends.h"
#include "worker/trainer/data_loader.h"

namespace attnfleet::trainer {
namespace {

using testing::HasSubstr;

constexpr int64_t kPlenty = int64_t{1} << 40;

// A small model with bias tables large enough to matter, and a batch with padding.
struct Fixture {
  Model model;
  Batch batch;

  explicit Fixture(bool train_bias_tables = false) {
    ModelConfig config = SmallModel();
    config.layers = 2;
    config.train_bias_tables = train_bias_tables;
    model = MakeModel(config, at::kCPU, 1);
    const at::NoGradGuard no_gradient;
    for (at::Tensor* table : {&model.rel_pos_bias, &model.rel_pos_x_bias, &model.rel_pos_y_bias}) table->normal_(0, 8);
    VisitParameters(model, [](const ParameterSpec& spec, at::Tensor& tensor) {  // so that attention is not uniform
      if (spec.kind == ParameterKind::kWeight) tensor.detach().mul_(10);
    });
    SyntheticSpec spec;
    spec.batch = 8;
    spec.sequence_length = 16;
    spec.vocabulary = 60;
    spec.labels = 10;
    batch = DataLoader(spec, 0, /*pinned=*/false).Next();
    batch.attention_mask.slice(1, 11)[1].zero_();
    batch.padded = true;
  }

  NumericalCheck Check(const Backend& backend, bool mixed = false, int64_t free = kPlenty) {
    return CheckAgainstEager({model, backend, batch, mixed ? at::kBFloat16 : at::kFloat, mixed}, [=] { return free; });
  }
};

Backend With(at::Tensor (*forward)(const AttentionInput&)) {
  Backend backend = *FindBackend("eager").value();
  backend.forward = forward;
  return backend;
}

TEST(Check, EveryBackendInFp32DiffersByRounding) {
  for (const Backend* backend : Backends()) {
    if (!backend->cpu) continue;
    const NumericalCheck check = Fixture().Check(*backend);
    EXPECT_EQ(check.skipped, "") << backend->name;
    EXPECT_EQ(check.samples, 8) << backend->name;
    EXPECT_LT(check.output_error, 1e-4) << backend->name;
    EXPECT_LT(check.loss_error, 1e-4) << backend->name;
    EXPECT_LT(check.gradient_error, 1e-4) << backend->name;
    EXPECT_GT(check.gradient_error, 0) << backend->name;
    EXPECT_THAT(check.gradient_worst, HasSubstr("."));
  }
}

TEST(Check, MixedPrecisionDiffersByItsOwnRounding) {
  const NumericalCheck check = Fixture().Check(*FindBackend("eager").value(), /*mixed=*/true);
  EXPECT_GT(check.output_error, 1e-4);
  EXPECT_LT(check.output_error, 0.3);
}

TEST(Check, BackendThatComputesSomethingElseIsFarOff) {
  const NumericalCheck check = Fixture().Check(With([](const AttentionInput& input) {
    return FindBackend("eager").value()->forward({input.q * 2, input.k, input.v, input.step, input.dropout});
  }));
  EXPECT_GT(check.output_error, 0.01);
  EXPECT_GT(check.gradient_error, 0.01);
}

// The exact pass has copies of the parameters, so what hangs at one of the model's spoils the other pass alone.
TEST(Check, OneGradientThatIsTwiceWhatItShouldBeIsSeen) {
  for (const std::string name :
       {"layoutlmv3.encoder.layer.0.output.LayerNorm.weight", "layoutlmv3.encoder.layer.0.attention.self.value.bias",
        "layoutlmv3.encoder.rel_pos_bias.weight", "layoutlmv3.encoder.rel_pos_x_bias.weight"}) {
    Fixture fixture(/*train_bias_tables=*/true);
    VisitParameters(fixture.model, [&](const ParameterSpec& spec, at::Tensor& tensor) {
      if (spec.name == name) tensor.register_hook([](const at::Tensor& gradient) { return gradient * 2; });
    });
    const NumericalCheck check = fixture.Check(*FindBackend("eager").value());
    EXPECT_EQ(check.gradient_worst, name);
    EXPECT_GT(check.gradient_error, 0.5) << name;
    EXPECT_LT(check.output_error, 1e-4) << name;
  }
}

TEST(Check, NotANumberIsReportedAsSuch) {
  const NumericalCheck check =
      Fixture().Check(With([](const AttentionInput& input) { return (input.q + input.k + input.v) * std::nan(""); }));
  EXPECT_TRUE(std::isnan(check.output_error));
  EXPECT_TRUE(std::isnan(check.gradient_error));
}

TEST(Check, TakesAsManySamplesAsFit) {
  EXPECT_EQ(Fixture().Check(*Backends()[0], false, 0).samples, 1);
  // With three sequences it fails, as if they did not fit.
  const Backend backend = With([](const AttentionInput& input) -> at::Tensor {
    TORCH_CHECK_WITH(OutOfMemoryError, input.q.size(0) < 3, "CUDA out of memory.");
    return FindBackend("eager").value()->forward(input);
  });
  const NumericalCheck check = Fixture().Check(backend);
  EXPECT_EQ(check.samples, 2);
  EXPECT_LT(check.output_error, 1e-4);
}

TEST(Check, SaysWhyThereIsNone) {
  const Backend full = With([](const AttentionInput&) -> at::Tensor {
    TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory.\nmore");
  });
  Fixture fixture;
  NumericalCheck check = fixture.Check(full);
  EXPECT_EQ(check.samples, 0);
  EXPECT_EQ(check.skipped, "one sequence does not fit: CUDA out of memory.");
  const Backend broken = With([](const AttentionInput&) -> at::Tensor { throw std::runtime_error("no kernel"); });
  EXPECT_EQ(fixture.Check(broken).skipped, "failed: no kernel");
}

TEST(Check, LeavesTheModelAsItWas) {
  Fixture fixture;
  const at::Tensor weight = fixture.model.layers[0].query.weight;
  const at::Tensor before = weight.detach().clone();
  fixture.Check(*FindBackend("sdpa").value());
  EXPECT_TRUE(weight.detach().equal(before));
  EXPECT_FALSE(weight.grad().defined());
  EXPECT_GT(fixture.model.config.hidden_dropout, 0);
}

TEST(Check, RelativeErrorIsOfTheLargestValue) {
  const at::Tensor exact = at::tensor({1.0, -4.0, 0.0});
  EXPECT_DOUBLE_EQ(RelativeError(at::tensor({1.0, -4.0, 1.0}), exact), 0.25);
  EXPECT_DOUBLE_EQ(RelativeError(at::tensor({0.5}, at::kDouble), at::tensor({0.25}, at::kDouble), 100), 0.0025);
  EXPECT_DOUBLE_EQ(RelativeError(at::tensor({0.5}, at::kDouble), at::tensor({0.25}, at::kDouble), 0.125), 1);
  EXPECT_TRUE(std::isinf(RelativeError(at::tensor({0.5}, at::kDouble), at::tensor({0.0}, at::kDouble))));
  EXPECT_EQ(RelativeError(at::tensor({0.0}, at::kDouble), at::tensor({0.0}, at::kDouble)), 0);
  EXPECT_TRUE(std::isnan(RelativeError(at::tensor({std::nan("")}), at::tensor({1.0}))));
}

}  // namespace
}  // namespace attnfleet::trainer
