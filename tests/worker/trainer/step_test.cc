// The fused step on the CPU: its operations against LibTorch's, its dropout, its Adam, whole steps against those of the
// reference, and that it learns what the reference learns. golden_test.cc compares it with Hugging Face.

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "learning.h"
#include "small_model.h"
#include "worker/trainer/attention/backends.h"
#include "worker/trainer/autocast.h"
#include "worker/trainer/check.h"
#include "worker/trainer/optimizer.h"
#include "worker/trainer/precision.h"
#include "worker/trainer/step/adam.h"
#include "worker/trainer/step/fused_step.h"
#include "worker/trainer/step/operations.h"
#include "worker/trainer/step/reference.h"
#include "worker/trainer/training.h"

namespace attnfleet::trainer {
namespace {

using testing::HasSubstr;

std::map<std::string, at::Tensor> Gradients(Model& model) {
  std::map<std::string, at::Tensor> gradients;
  VisitParameters(model, [&](const ParameterSpec& spec, at::Tensor& parameter) {
    if (parameter.requires_grad()) gradients[spec.name] = parameter.grad().to(at::kDouble, false, /*copy=*/true);
  });
  return gradients;
}

double Largest(const at::Tensor& tensor) { return tensor.abs().max().item<double>(); }

const Backend& Eager() { return *FindBackend("eager").value(); }

struct Figures {
  at::Tensor loss, logits;
  std::map<std::string, at::Tensor> gradients;
};

Figures ReferenceFigures(const ModelConfig& config, const Batch& batch, bool mixed) {
  Model model = MakeModel(config, at::kCPU, 5);
  ModelOutput output;
  {
    const Autocast autocast(mixed, at::kCPU);
    output = Forward(model, Eager(), batch, mixed ? at::kBFloat16 : at::kFloat, true);
  }
  output.loss.backward();
  return {output.loss.detach(), output.logits.detach().to(at::kDouble), Gradients(model)};
}

Figures FusedFigures(const ModelConfig& config, const Batch& batch, bool mixed, int passes = 1,
                     at::ScalarType stream = at::kFloat) {
  Model model = MakeModel(config, at::kCPU, 5);
  FusedTrainingStep step(model, mixed ? at::kBFloat16 : at::kFloat, stream, 7);
  ModelOutput output;
  for (int pass = 0; pass < passes; ++pass) {
    {
      const Autocast autocast(mixed, at::kCPU);
      output = step.Forward(model, Eager(), batch, true);
    }
    output.loss.backward();
  }
  return {output.loss.detach(), output.logits.detach().to(at::kDouble), Gradients(model)};
}

ModelConfig WithoutDropout(ModelConfig config) {
  config.hidden_dropout = config.attention_dropout = 0;
  return config;
}

TEST(FusedTrainingStep, WithoutDropoutEqualsTheReference) {
  for (const int64_t labels : {7, 12}) {
    for (const bool trained_tables : {false, true}) {
      ModelConfig config = WithoutDropout(SmallModel());
      config.layers = 3;
      config.labels = labels;
      config.train_bias_tables = trained_tables;
      const Batch batch = LearnableBatch(config, 1);
      const Figures expected = ReferenceFigures(config, batch, false);
      // The second pass finds the first one's gradients and must not add to them.
      for (const int passes : {1, 2}) {
        const Figures actual = FusedFigures(config, batch, false, passes);
        EXPECT_LT(RelativeError(actual.loss, expected.loss), 1e-6);
        EXPECT_LT(RelativeError(actual.logits, expected.logits), 5e-6);
        ASSERT_EQ(actual.gradients.size(), expected.gradients.size());
        for (const auto& [name, gradient] : expected.gradients) {
          EXPECT_LT(RelativeError(actual.gradients.at(name), gradient, 1e-4), 1e-5) << name;
        }
      }
    }
  }
}

// In mixed precision both differ from fp32 by rounding; the fused step, which rounds less often, by no more.
TEST(FusedTrainingStep, InMixedPrecisionIsAsExactAsTheReference) {
  ModelConfig config = WithoutDropout(SmallModel());
  config.layers = 3;
  const Batch batch = LearnableBatch(config, 1);
  const Figures exact = ReferenceFigures(config, batch, false);
  const Figures reference = ReferenceFigures(config, batch, true), fused = FusedFigures(config, batch, true);
  const Figures bf16_stream = FusedFigures(config, batch, true, 1, at::kBFloat16);
  double largest = 0;
  for (const auto& [name, gradient] : exact.gradients) largest = std::max(largest, Largest(gradient));
  const auto worst = [&](const Figures& figures) {
    double error = 0;
    for (const auto& [name, gradient] : exact.gradients) {
      error = std::max(error, RelativeError(figures.gradients.at(name), gradient, 0.01 * largest));
    }
    return error;
  };
  const auto logits = [&](const Figures& figures) { return RelativeError(figures.logits, exact.logits); };
  std::printf("logits %.4f (bf16 stream %.4f, reference %.4f), gradients %.4f (bf16 stream %.4f, reference %.4f)\n",
              logits(fused), logits(bf16_stream), logits(reference), worst(fused), worst(bf16_stream),
              worst(reference));
  EXPECT_LT(logits(fused), 0.02);
  EXPECT_LT(worst(fused), 0.1);
  EXPECT_GT(worst(fused), 1e-5);  // it did round
  EXPECT_LT(worst(fused), 2 * worst(reference) + 0.01);
  // The stream is rounded twice a layer more. It is another computation: the logits are not the same.
  EXPECT_LT(logits(bf16_stream), 0.04);
  EXPECT_LT(worst(bf16_stream), 0.2);
  EXPECT_FALSE(bf16_stream.logits.equal(fused.logits));
}

// Padding has no rows; a token that attention does not see, but that has a label, does.
TEST(FusedTrainingStep, WithoutPaddingEqualsTheReference) {
  ModelConfig config = WithoutDropout(SmallModel());
  config.layers = 2;
  Batch batch = LearnableBatch(config, 1);
  batch.labels[1][batch.ids.size(1) - 2] = 3;
  const Figures expected = ReferenceFigures(config, batch, false);
  batch.rows = TokensThatMatter(batch);
  EXPECT_EQ(batch.rows.numel(), batch.ids.numel() - 2);
  const Figures actual = FusedFigures(config, batch, false);
  EXPECT_LT(RelativeError(actual.loss, expected.loss), 1e-6);
  const at::Tensor seen = batch.attention_mask.unsqueeze(-1).to(at::kDouble);
  EXPECT_LT(RelativeError(actual.logits * seen, expected.logits * seen), 5e-6);
  for (const auto& [name, gradient] : expected.gradients) {
    EXPECT_LT(RelativeError(actual.gradients.at(name), gradient, 1e-4), 1e-5) << name;
  }
}

TEST(FusedTrainingStep, KeepsEveryTokenOfABatchWithoutPaddingOrWithAnImage) {
  Batch batch = LearnableBatch(SmallModel(), 1);
  EXPECT_TRUE(TokensThatMatter(batch).defined());
  batch.image = at::zeros({1});
  EXPECT_FALSE(TokensThatMatter(batch).defined());
  batch.image = at::Tensor();
  batch.padded = false;
  EXPECT_FALSE(TokensThatMatter(batch).defined());
}

TEST(FusedTrainingStep, LeavesAnImageToLibTorch) {
  ModelConfig config = WithoutDropout(SmallModel());
  config.image = true;
  config.image_size = 8;
  config.patch_size = 4;
  Batch batch = LearnableBatch(config, 2);
  batch.image = at::randn({3, 3, 8, 8});
  const Figures expected = ReferenceFigures(config, batch, false), actual = FusedFigures(config, batch, false);
  EXPECT_LT(RelativeError(actual.logits, expected.logits), 5e-6);
  for (const auto& [name, gradient] : expected.gradients) {
    EXPECT_LT(RelativeError(actual.gradients.at(name), gradient, 1e-4), 1e-5) << name;
  }
}

TEST(FusedTrainingStep, SameSeedSameBitsAndEveryPassDropsAnew) {
  ModelConfig config = SmallModel();
  config.attention_dropout = 0;  // whose generator is LibTorch's
  const Batch batch = LearnableBatch(config, 1);
  const Figures first = FusedFigures(config, batch, false), again = FusedFigures(config, batch, false);
  EXPECT_TRUE(first.logits.equal(again.logits));
  for (const auto& [name, gradient] : first.gradients) EXPECT_TRUE(gradient.equal(again.gradients.at(name))) << name;
  EXPECT_FALSE(first.logits.equal(FusedFigures(config, batch, false, 2).logits));
}

TEST(FusedTrainingStep, DropsNothingOutsideTraining) {
  const ModelConfig config = SmallModel();
  const Batch batch = LearnableBatch(config, 1);
  Model model = MakeModel(config, at::kCPU, 5);
  FusedTrainingStep step(model, at::kFloat, at::kFloat, 7);
  const at::Tensor logits = step.Forward(model, Eager(), batch, false).logits.detach();
  EXPECT_TRUE(logits.equal(step.Forward(model, Eager(), batch, false).logits));
  EXPECT_LT(RelativeError(logits, Forward(model, Eager(), batch, at::kFloat, false).logits.to(at::kDouble)), 5e-6);
}

TEST(FusedTrainingStep, IdsBeyondTheTableAreAnError) {
  const ModelConfig config = SmallModel();
  Batch batch = LearnableBatch(config, 1);
  batch.ids[0][0] = config.vocabulary;
  Model model = MakeModel(config, at::kCPU, 5);
  FusedTrainingStep step(model, at::kFloat, at::kFloat, 7);
  EXPECT_THROW(step.Forward(model, Eager(), batch, true), c10::Error);
}

// One operation at a time, with dropout, whose mask Drop() shows.
class StepOperations : public testing::Test {
 protected:
  StepOperations() {
    at::manual_seed(11);
    state_.seed = 3;
    state_.passes = 9;
  }

  StepDropout Dropout(uint32_t site, double p = 0.3) { return {&state_, site, StepThreshold(p)}; }

  // What the elements of a matrix are multiplied with.
  at::Tensor Factors(const StepDropout& dropout, at::IntArrayRef sizes) {
    return Drop(context_, at::ones(sizes), dropout, {});
  }

  StepNormWeights MakeNorm(int64_t columns) {
    return {at::randn({columns}), at::randn({columns}), at::zeros({columns}), at::zeros({columns})};
  }
  StepProduct MakeProduct(int64_t out, int64_t in) {
    return {at::randn({out, in}), at::randn({out}), at::zeros({out, in}), at::zeros({out})};
  }

  static void ExpectNear(const at::Tensor& actual, const at::Tensor& expected, const char* what) {
    EXPECT_LT(RelativeError(actual.detach(), expected.detach().to(at::kDouble)), 3e-6) << what;
  }

  StepState state_{};
  const std::unique_ptr<StepKernels> kernels_ = MakeReferenceKernels();
  const StepContext context_{kernels_.get(), at::kFloat, at::kFloat, 1e-5F};
};

at::Tensor Leaf(const at::Tensor& tensor) { return tensor.clone().requires_grad_(); }

TEST_F(StepOperations, DropoutKeepsItsRateAndTheMean) {
  for (const double p : {0.1, 0.5, 0.9}) {
    const int64_t count = 100'000;
    const at::Tensor factors = Factors(Dropout(1, p), {count});
    const double rate = factors.gt(0).to(at::kDouble).mean().item<double>();
    const double kept = StepThreshold(p) / 65536.0;
    EXPECT_NEAR(kept, 1 - p, 1.0 / 65536);
    EXPECT_NEAR(rate, kept, 5 * std::sqrt(kept * (1 - kept) / static_cast<double>(count)));
    EXPECT_FLOAT_EQ(factors.max().item<float>(), static_cast<float>(1 / kept));
  }
  EXPECT_TRUE(Factors(Dropout(1, 0), {1000}).eq(1).all().item<bool>());
}

TEST_F(StepOperations, DropoutIsIndependentAcrossSitesPassesSeedsAndNeighbours) {
  const int64_t count = 100'000;
  const auto mask = [&](uint32_t site) { return Factors(Dropout(site, 0.5), {count}).gt(0).to(at::kDouble); };
  const at::Tensor first = mask(1);
  const auto agree = [&](const at::Tensor& other) { return first.eq(other).to(at::kDouble).mean().item<double>(); };
  EXPECT_EQ(agree(mask(1)), 1);
  EXPECT_NEAR(agree(mask(2)), 0.5, 0.01) << "site";
  for (const int64_t shift : {1, 2, 8, 768}) EXPECT_NEAR(agree(first.roll(shift)), 0.5, 0.01) << shift;
  ++state_.passes;
  EXPECT_NEAR(agree(mask(1)), 0.5, 0.01) << "pass";
  --state_.passes;
  ++state_.seed;
  EXPECT_NEAR(agree(mask(1)), 0.5, 0.01) << "seed";
}

TEST_F(StepOperations, TwoDropoutsAreTheirProduct) {
  const at::Tensor x = Leaf(at::randn({6, 20})), dy = at::randn({6, 20});
  const at::Tensor both = Factors(Dropout(1), {6, 20}) * Factors(Dropout(2), {6, 20});
  const at::Tensor y = Drop(context_, x, Dropout(1), Dropout(2));
  ExpectNear(y, x * both, "y");
  y.backward(dy);
  ExpectNear(x.grad(), dy * both, "dx");
}

// 24 columns and 20, which no group of eight divides.
TEST_F(StepOperations, NormBehindAProductIsWhatItIsMadeOf) {
  for (const int64_t columns : {24, 20}) {
    const StepProduct product = MakeProduct(columns, 16);
    const StepNormWeights norm = MakeNorm(columns);
    const StepDropout dropout = Dropout(4);
    const at::Tensor x = Leaf(at::randn({9, 16})), residual = Leaf(at::randn({9, columns}));
    const at::Tensor dy = at::randn({9, columns}), low_dy = at::randn({9, columns});
    const Stream stream = ProjectAndAdd(context_, x, residual, product, norm, dropout);
    at::Tensor loss = (stream.y * dy + stream.low_y * low_dy).sum();
    loss.backward();

    const at::Tensor x2 = Leaf(x.detach()), residual2 = Leaf(residual.detach());
    const at::Tensor weight = Leaf(product.weight), bias = Leaf(product.bias);
    const at::Tensor scale = Leaf(norm.weight), shift = Leaf(norm.shift);
    const at::Tensor y = at::layer_norm(at::linear(x2, weight, bias) * Factors(dropout, {9, columns}) + residual2,
                                        {columns}, scale, shift, 1e-5);
    y.backward(dy + low_dy);
    ExpectNear(stream.y, y, "y");
    ExpectNear(stream.low_y, y, "low y");
    ExpectNear(x.grad(), x2.grad(), "dx");
    ExpectNear(residual.grad(), residual2.grad(), "dresidual");
    ExpectNear(product.weight_gradient, weight.grad(), "dweight");
    ExpectNear(product.bias_gradient, bias.grad(), "dbias");
    ExpectNear(norm.weight_gradient, scale.grad(), "dscale");
    ExpectNear(norm.shift_gradient, shift.grad(), "dshift");
  }
}

TEST_F(StepOperations, OneGradientOfTheStreamIsEnough) {
  const StepProduct product = MakeProduct(24, 16);
  const StepNormWeights norm = MakeNorm(24);
  for (const bool low : {false, true}) {
    const at::Tensor x = Leaf(at::randn({5, 16})), residual = at::randn({5, 24}), dy = at::randn({5, 24});
    const Stream stream = ProjectAndAdd(context_, x, residual, product, norm, {});
    (low ? stream.low_y : stream.y).backward(dy);
    const at::Tensor x2 = Leaf(x.detach());
    at::layer_norm(at::linear(x2, product.weight, product.bias) + residual, {24}, norm.weight, norm.shift, 1e-5)
        .backward(dy);
    ExpectNear(x.grad(), x2.grad(), "dx");
  }
}

TEST_F(StepOperations, FeedForwardIsWhatItIsMadeOf) {
  StepLayer layer;
  layer.intermediate = MakeProduct(40, 24);
  layer.output = MakeProduct(24, 40);
  layer.output_norm = MakeNorm(24);
  const StepDropout dropout = Dropout(5);
  const at::Tensor x = Leaf(at::randn({7, 24})), residual = Leaf(at::randn({7, 24})), dy = at::randn({7, 24});
  const Stream stream = FeedForward(context_, x, residual, layer, dropout);
  stream.y.backward(dy);

  const at::Tensor x2 = Leaf(x.detach()), residual2 = Leaf(residual.detach());
  const at::Tensor first = Leaf(layer.intermediate.weight), first_bias = Leaf(layer.intermediate.bias);
  const at::Tensor second = Leaf(layer.output.weight);
  const at::Tensor inner = at::linear(at::gelu(at::linear(x2, first, first_bias)), second, layer.output.bias);
  const at::Tensor y = at::layer_norm(inner * Factors(dropout, {7, 24}) + residual2, {24}, layer.output_norm.weight,
                                      layer.output_norm.shift, 1e-5);
  y.backward(dy);
  ExpectNear(stream.y, y, "y");
  ExpectNear(x.grad(), x2.grad(), "dx");
  ExpectNear(residual.grad(), residual2.grad(), "dresidual");
  ExpectNear(layer.intermediate.weight_gradient, first.grad(), "dfirst");
  ExpectNear(layer.intermediate.bias_gradient, first_bias.grad(), "dfirst bias");
  ExpectNear(layer.output.weight_gradient, second.grad(), "dsecond");
}

TEST_F(StepOperations, NormBeforeDropout) {
  const StepNormWeights norm = MakeNorm(24);
  const at::Tensor x = Leaf(at::randn({7, 24})), dy = at::randn({7, 24});
  const Stream stream = NormAndDrop(context_, x, norm, Dropout(6));
  stream.y.backward(dy);
  const at::Tensor x2 = Leaf(x.detach()), scale = Leaf(norm.weight);
  const at::Tensor y = at::layer_norm(x2, {24}, scale, norm.shift, 1e-5) * Factors(Dropout(6), {7, 24});
  y.backward(dy);
  ExpectNear(stream.y, y, "y");
  ExpectNear(x.grad(), x2.grad(), "dx");
  ExpectNear(norm.weight_gradient, scale.grad(), "dscale");
}

// What comes back as parts of one packed gradient is not copied; what does not is put together.
TEST_F(StepOperations, QkvTakesPackedGradientsAndSeparateOnes) {
  const int64_t batch = 2, length = 5, heads = 3, size = 4, hidden = heads * size;
  const StepProduct product = MakeProduct(3 * hidden, hidden);
  const at::Tensor packed = at::randn({batch, length, 3, heads, size});
  for (const bool separate : {false, true}) {
    const at::Tensor x = Leaf(at::ones({batch * length, hidden}) * 0.5);
    const auto parts = ProjectQkv(context_, x, product, {batch, heads, batch * length, {}});
    EXPECT_EQ(parts[1].sizes(), (std::vector<int64_t>{batch, heads, length, size}));
    EXPECT_TRUE(parts[0].is_alias_of(parts[2]));
    std::vector<at::Tensor> gradients;
    for (int64_t i = 0; i < 3; ++i) {
      const at::Tensor part = packed.select(2, i).transpose(1, 2);
      gradients.push_back(separate ? part.contiguous() : part);
    }
    torch::autograd::backward({parts[0], parts[1], parts[2]}, gradients);
    const at::Tensor rows = packed.view({batch * length, 3 * hidden});
    ExpectNear(x.grad(), at::matmul(rows, product.weight), "dx");
    ExpectNear(product.bias_gradient, rows.sum(0), "dbias");
    ExpectNear(product.weight_gradient, at::matmul(rows.t(), x.detach()), "dweight");
  }
}

// Equal boxes: every token adds to the same rows.
TEST_F(StepOperations, EqualBoxesAddUp) {
  ModelConfig config = WithoutDropout(SmallModel());
  Batch batch = LearnableBatch(config, 1, 4, 40);
  batch.boxes.fill_(1);
  const Figures expected = ReferenceFigures(config, batch, false), actual = FusedFigures(config, batch, false);
  for (const auto& [name, gradient] : expected.gradients) {
    EXPECT_LT(RelativeError(actual.gradients.at(name), gradient, 1e-4), 1e-5) << name;
  }
}

class FusedAdams : public testing::TestWithParam<Optimizer> {};

TEST_P(FusedAdams, FollowLibTorchsOverFiveUpdates) {
  at::manual_seed(11);
  for (const at::ScalarType low : {at::kFloat, at::kBFloat16}) {
    const ModelConfig config = SmallModel();
    Model model = MakeModel(config, at::kCPU, 5), reference = MakeModel(config, at::kCPU, 5);
    FusedTrainingStep step(model, low, at::kFloat, 7);
    FusedAdam fused(GetParam(), 0.01, step);
    std::vector<at::Tensor> ours, theirs;
    VisitParameters(model, [&](const ParameterSpec&, at::Tensor& p) {
      if (p.requires_grad()) ours.push_back(p);
    });
    VisitParameters(reference, [&](const ParameterSpec&, at::Tensor& p) {
      if (p.requires_grad()) theirs.push_back(p);
    });
    AdamOptimizer adam(GetParam(), 0.01, theirs);
    FusedWeights& weights = const_cast<FusedWeights&>(step.weights());
    for (int update = 0; update < 5; ++update) {
      weights.BeginGradients();
      for (size_t i = 0; i < ours.size(); ++i) {
        const at::NoGradGuard no_gradient;
        ours[i].grad().copy_(at::randn(ours[i].sizes()) * std::pow(10.0, static_cast<double>(i % 5) - 3));
        theirs[i].mutable_grad() = ours[i].grad().to(at::kFloat, false, /*copy=*/true);
      }
      fused.Step();
      adam.Step();
    }
    for (size_t i = 0; i < ours.size(); ++i) {
      // Five roundings of weights of up to 1.05.
      EXPECT_LT(Largest(ours[i].detach() - theirs[i].detach()), 6e-7) << i;
      EXPECT_GT(Largest(ours[i].detach()), 0.01) << i;
    }
    if (low == at::kBFloat16) {
      EXPECT_TRUE(weights.low().equal(weights.all().narrow(0, 0, weights.low_count()).to(low)));
    } else {
      EXPECT_FALSE(weights.low().defined());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, FusedAdams, testing::Values(Optimizer::kAdam, Optimizer::kAdamW));

TEST(FusedTrainingStep, LearnsWhatTheReferenceLearns) {
  ModelConfig config = SmallModel();
  config.labels = 4;
  config.vocabulary = 12;
  ExpectLearnsWhatTheReferenceLearns({config, at::kCPU, false, 8, 12, 0.01, &Eager(), &Eager()}, {1, 2, 3},
                                     {StepKind::kFused});
}

Config RunConfig(Precision precision) {
  Config config;
  config.batch = 2;
  config.sequence_length = 16;
  config.model = SmallModel();
  config.warmup_steps = 1;
  config.timed_steps = 4;
  config.learning_rate = 0.01;
  config.data_loader_threads = 1;
  config.step = StepKind::kFused;
  config.precision = precision;
  return config;
}

RunHooks Hooks() {
  return {[](const Environment&, int64_t) {}, [](const Progress&) {}, [] { return false; }};
}

TEST(FusedTrainingRun, IsMeasuredWithEveryBackendOfTheCpu) {
  for (const Precision precision : {Precision::kFp32, Precision::kBf16Mixed}) {
    for (const Backend* backend : Backends()) {
      if (!backend->cpu) continue;
      Config config = RunConfig(precision);
      config.check = true;
      const RunResult result = RunTraining(config, *backend, nullptr, Hooks());
      ASSERT_EQ(result.outcome, Outcome::kMeasured) << backend->name << ": " << result.reason;
      EXPECT_NEAR(result.measurement.first_loss, std::log(10.0), 0.5) << backend->name;
      EXPECT_FALSE(result.measurement.attention_kernels.empty()) << result.measurement.attention_kernels_unknown;
      ASSERT_TRUE(result.measurement.numerical_check.has_value());
      EXPECT_EQ(result.measurement.numerical_check->skipped, "");
      EXPECT_LT(result.measurement.numerical_check->gradient_error, precision == Precision::kFp32 ? 1e-4 : 0.1);
    }
  }
}

TEST(FusedTrainingRun, SaysWhatItsWeightsTake) {
  Config config = RunConfig(Precision::kFp32);
  const Measurement fp32 = RunTraining(config, Eager(), nullptr, Hooks()).measurement;
  config.precision = Precision::kBf16Mixed;
  const Measurement mixed = RunTraining(config, Eager(), nullptr, Hooks()).measurement;
  EXPECT_GT(mixed.model_bytes, fp32.model_bytes);        // by the copies
  EXPECT_LT(mixed.gradient_bytes, fp32.gradient_bytes);  // of the products' weights
  EXPECT_EQ(mixed.optimizer_bytes, fp32.optimizer_bytes);
  EXPECT_GE(fp32.optimizer_bytes, 2 * fp32.gradient_bytes);
}

TEST(FusedTrainingRun, WithoutFp32WeightsIsRefused) {
  const RunResult result = RunTraining(RunConfig(Precision::kBf16), Eager(), nullptr, Hooks());
  EXPECT_EQ(result.outcome, Outcome::kUnsupported);
  EXPECT_THAT(result.reason, HasSubstr("fused step"));
  EXPECT_THAT(result.reason, HasSubstr("bf16-mixed"));
}

TEST(FusedTrainingRun, StreamOfBf16IsForMixedPrecisionAndSaysWhatItIs) {
  Config config = RunConfig(Precision::kBf16Mixed);
  config.step = StepKind::kFusedBf16Stream;
  const RunResult mixed = RunTraining(config, Eager(), nullptr, Hooks());
  ASSERT_EQ(mixed.outcome, Outcome::kMeasured) << mixed.reason;
  EXPECT_EQ(mixed.environment.step, "fused-bf16-stream");
  config.precision = Precision::kFp32;
  const RunResult refused = RunTraining(config, Eager(), nullptr, Hooks());
  EXPECT_EQ(refused.outcome, Outcome::kUnsupported);
  EXPECT_THAT(refused.reason, HasSubstr("fused-bf16-stream"));
  EXPECT_THAT(refused.reason, HasSubstr("bf16-mixed"));
}

TEST(FusedTrainingRun, DropsTheOutputOfAttentionWhereAsked) {
  Config config = RunConfig(Precision::kFp32);
  config.model.hidden_dropout = 0;
  config.model.attention_dropout = 0.5;
  config.model.dropout_placement = DropoutPlacement::kOutput;
  const double dropped = RunTraining(config, Eager(), nullptr, Hooks()).measurement.first_loss;
  config.model.attention_dropout = 0;
  EXPECT_NE(RunTraining(config, Eager(), nullptr, Hooks()).measurement.first_loss, dropped);
}

TEST(RefuseStep, SaysThatAutoIsNoLowPrecisionOnTheCpu) {
  const Precision automatic = ResolvePrecision(Precision::kAuto, /*cuda=*/false);
  EXPECT_THAT(RefuseStep(StepKind::kFusedBf16Stream, automatic).value_or(""), HasSubstr("auto is fp32 on the CPU"));
  EXPECT_FALSE(RefuseStep(StepKind::kFusedBf16Stream, Precision::kBf16Mixed).has_value());
  EXPECT_FALSE(RefuseStep(StepKind::kFused, automatic).has_value());
}

}  // namespace
}  // namespace attnfleet::trainer
