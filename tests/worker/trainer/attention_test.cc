#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "worker/trainer/attention/backends.h"
#include "worker/trainer/attention/contract.h"
#include "worker/trainer/attention/gradient_layout.h"
#include "worker/trainer/bias.h"
#include "worker/trainer/buckets.h"
#include "worker/trainer/model_config.h"

namespace attnfleet::trainer {
namespace {

constexpr int64_t kBatch = 2, kHeads = 3, kLength = 37, kHeadSize = 16;

BiasSource MakeSource() {
  BiasSource source;
  source.relative_table = at::randn({kHeads, kRelativeBuckets}) * 8;
  source.x_table = at::randn({kHeads, kSpatialBuckets}) * 8;
  source.y_table = at::randn({kHeads, kSpatialBuckets}) * 8;
  const auto table = [](const std::vector<int64_t>& buckets) {
    return at::tensor(at::ArrayRef<int64_t>(buckets), at::kLong);
  };
  source.relative_buckets = table(BucketTable(64, kRelativeBuckets, kRelativeMaxDistance));
  source.spatial_buckets = table(BucketTable(1023, kSpatialBuckets, kSpatialMaxDistance));
  source.positions = at::arange(kLength, at::kLong);
  source.boxes = at::randint(0, 1001, {kBatch, kLength, 4}, at::kLong);
  source.attention_mask = at::ones({kBatch, kLength}, at::kLong);
  return source;
}

AttentionProblem MakeTestProblem(bool relative, bool spatial, bool padded) {
  AttentionProblem problem;
  problem.batch = kBatch;
  problem.heads = kHeads;
  problem.sequence_length = kLength;
  problem.head_size = kHeadSize;
  problem.relative_bias = relative;
  problem.spatial_bias = spatial;
  problem.padded = padded;
  return problem;
}

struct Gradients {
  at::Tensor output, dq, dk, dv;
};

Gradients RunBackend(const Backend& backend, const AttentionProblem& problem, const BiasSource& source) {
  at::manual_seed(11);
  const std::vector<int64_t> shape = {kBatch, kHeads, kLength, kHeadSize};
  const at::Tensor q = at::randn(shape).requires_grad_(), k = at::randn(shape).requires_grad_(),
                   v = at::randn(shape).requires_grad_();
  const StepTensors step = backend.prepare(problem, source);
  const at::Tensor output = backend.forward({q, k, v, step, 0});
  output.backward(at::randn(shape));
  return {output.detach(), q.grad(), k.grad(), v.grad()};
}

double Difference(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>() / b.abs().max().item<double>();
}

TEST(Attention, EveryBackendAgreesWithEagerOnEveryKindOfBias) {
  at::manual_seed(5);
  BiasSource source = MakeSource();
  for (const Backend* backend : Backends()) {
    if (!backend->cpu) continue;
    for (int kind = 0; kind < 8; ++kind) {
      const AttentionProblem problem = MakeTestProblem((kind & 1) != 0, (kind & 2) != 0, (kind & 4) != 0);
      if (backend->refuse(problem)) continue;
      source.attention_mask.fill_(1);
      if (problem.padded) source.attention_mask.narrow(1, kLength - 9, 9)[1].zero_();
      const Gradients expected = RunBackend(*Backends().front(), problem, source);
      const Gradients actual = RunBackend(*backend, problem, source);
      EXPECT_LT(Difference(actual.output, expected.output), 1e-5) << backend->name << " " << kind;
      EXPECT_LT(Difference(actual.dq, expected.dq), 1e-5) << backend->name << " " << kind;
      EXPECT_LT(Difference(actual.dk, expected.dk), 1e-5) << backend->name << " " << kind;
      EXPECT_LT(Difference(actual.dv, expected.dv), 1e-5) << backend->name << " " << kind;
    }
  }
}

// A sequence that is all padding must not reach the weights as NaN, nor change the sequence beside it. Its own rows are
// read by nobody.
TEST(Attention, SequenceOfPaddingAloneIsFinite) {
  at::manual_seed(6);
  const AttentionProblem problem = MakeTestProblem(true, true, true);
  BiasSource source = MakeSource();
  source.attention_mask[0].zero_();
  for (const Backend* backend : Backends()) {
    if (!backend->cpu || backend->refuse(problem)) continue;
    const Gradients expected = RunBackend(*Backends().front(), problem, source);
    const Gradients actual = RunBackend(*backend, problem, source);
    EXPECT_LT(Difference(actual.output[1], expected.output[1]), 1e-5) << backend->name;
    EXPECT_TRUE(actual.output.isfinite().all().item<bool>()) << backend->name;
    EXPECT_LT(Difference(actual.dq[1], expected.dq[1]), 1e-5) << backend->name;
    EXPECT_LT(Difference(actual.dv[1], expected.dv[1]), 1e-5) << backend->name;
    EXPECT_TRUE(actual.dq.isfinite().all().item<bool>()) << backend->name;
    EXPECT_TRUE(actual.dv.isfinite().all().item<bool>()) << backend->name;
  }
}

TEST(Attention, Bf16IsNearFp32) {
  at::manual_seed(7);
  AttentionProblem problem = MakeTestProblem(true, true, true);
  problem.type = at::kBFloat16;
  BiasSource source = MakeSource();
  source.attention_mask.narrow(1, kLength - 9, 9)[1].zero_();
  const std::vector<int64_t> shape = {kBatch, kHeads, kLength, kHeadSize};
  const at::Tensor q = at::randn(shape, at::kBFloat16), k = at::randn(shape, at::kBFloat16),
                   v = at::randn(shape, at::kBFloat16);
  const Backend& eager = *Backends().front();
  const at::Tensor exact = eager.forward({q.to(at::kFloat), k.to(at::kFloat), v.to(at::kFloat),
                                          eager.prepare(MakeTestProblem(true, true, true), source), 0});
  for (const Backend* backend : Backends()) {
    if (!backend->cpu || backend->refuse(problem)) continue;
    const at::Tensor output = backend->forward({q, k, v, backend->prepare(problem, source), 0});
    EXPECT_EQ(output.scalar_type(), at::kBFloat16) << backend->name;
    EXPECT_LT(Difference(output.to(at::kFloat), exact), 0.05) << backend->name;
  }
}

// Tables that train: the same gradients by every backend that has them.
TEST(Attention, GradientsOfTheTablesAgreeWithEager) {
  for (const Backend* backend : Backends()) {
    AttentionProblem problem = MakeTestProblem(true, true, true);
    problem.bias_gradients = true;
    if (!backend->cpu || backend->refuse(problem)) continue;
    const auto gradients = [&](const Backend& any) {
      at::manual_seed(8);
      BiasSource source = MakeSource();
      source.attention_mask.narrow(1, kLength - 9, 9)[1].zero_();
      source.relative_table.requires_grad_();
      source.x_table.requires_grad_();
      source.y_table.requires_grad_();
      RunBackend(any, problem, source);
      return std::vector<at::Tensor>{source.relative_table.grad(), source.x_table.grad(), source.y_table.grad()};
    };
    const std::vector<at::Tensor> expected = gradients(*Backends().front()), actual = gradients(*backend);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_LT(Difference(actual[i], expected[i]), 1e-5) << backend->name << " " << i;
    }
  }
}

// Against the definition, one number at a time.
TEST(Attention, DenseBiasIsTheDefinition) {
  const BiasSource source = MakeSource();
  const at::Tensor relative = RelativeBias(source), spatial = SpatialBias(source);
  ASSERT_EQ(spatial.sizes(), (std::vector<int64_t>{kBatch, kHeads, kLength, kLength}));
  const auto boxes = source.boxes.accessor<int64_t, 3>();
  for (int64_t i = 0; i < kLength; i += 5) {
    for (int64_t j = 0; j < kLength; ++j) {
      const int64_t x = RelativePositionBucket(boxes[1][j][0] - boxes[1][i][0], kSpatialBuckets, kSpatialMaxDistance);
      const int64_t y = RelativePositionBucket(boxes[1][j][3] - boxes[1][i][3], kSpatialBuckets, kSpatialMaxDistance);
      EXPECT_EQ(spatial[1][2][i][j].item<float>(),
                source.x_table[2][x].item<float>() + source.y_table[2][y].item<float>());
      const int64_t d = RelativePositionBucket(j - i, kRelativeBuckets, kRelativeMaxDistance);
      EXPECT_EQ(relative[0][2][i][j].item<float>(), source.relative_table[2][d].item<float>());
    }
  }
}

TEST(Attention, GradientTakesTheLayoutOfTheOutput) {
  const auto strided = [] { return at::randn({kBatch, kLength, kHeads, kHeadSize}).transpose(1, 2); };
  for (const bool contiguous : {false, true}) {
    const at::Tensor output = WithGradientLayout(strided().requires_grad_() * 1);
    at::Tensor arrived;
    output.register_hook([&arrived](const at::Tensor& gradient) { arrived = gradient; });
    const at::Tensor gradient = contiguous ? strided().contiguous() : strided();
    output.backward(gradient);
    EXPECT_EQ(arrived.strides(), output.strides());
    EXPECT_TRUE(arrived.equal(gradient));
    EXPECT_EQ(arrived.is_same(gradient), !contiguous);
  }
  const at::Tensor constant = strided();
  EXPECT_TRUE(WithGradientLayout(constant).is_same(constant));
}

TEST(Attention, UnknownBackendNamesTheNearestAndAll) {
  const std::string message(FindBackend("eagre").status().message());
  EXPECT_THAT(message, testing::HasSubstr("did you mean \"eager\""));
  EXPECT_THAT(message, testing::HasSubstr("sdpa"));
}

}  // namespace
}  // namespace attnfleet::trainer
