// The kernels of the backend `fused` on the GPU, both ways that it can run them, against the same computation in fp64
// with the dropout's exported mask. Figures are printed.

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <memory>
#include <vector>

#include "worker/trainer/attention/backends.h"
#include "worker/trainer/attention/fused.h"
#include "worker/trainer/bias.h"
#include "worker/trainer/buckets.h"
#include "worker/trainer/cuda_module.h"
#include "worker/trainer/model_config.h"

namespace attnfleet::trainer {
namespace {

enum class Boxes { kRandom, kEqual, kSaturated, kLines };
enum class Padding { kNone, kTail, kHoles, kOneSequence };

struct Case {
  int64_t batch = 2, heads = 3, length = 64;
  bool biased = true;
  Boxes boxes = Boxes::kRandom;
  Padding padding = Padding::kNone;
  double deviation = 8;  // of the tables
  double dropout = 0;
  int64_t image = 0;  // the last tokens, whose positions begin again at 0
};

AttentionProblem ProblemOf(const Case& test) {
  AttentionProblem problem;
  problem.cuda = true;
  problem.type = at::kBFloat16;
  problem.batch = test.batch;
  problem.heads = test.heads;
  problem.sequence_length = test.length;
  problem.head_size = kFusedHeadSize;
  problem.relative_bias = problem.spatial_bias = test.biased;
  problem.padded = test.padding != Padding::kNone;
  return problem;
}

FusedShape ShapeOf(const Case& test) {
  return {static_cast<int>(test.batch), static_cast<int>(test.heads), static_cast<int>(test.length), test.biased};
}

at::Tensor MakeBoxes(const Case& test) {
  const at::Tensor boxes = at::randint(0, 1001, {test.batch, test.length, 4}, at::kLong);
  const at::Tensor index = at::arange(test.length, at::kLong);
  if (test.boxes == Boxes::kEqual) boxes.fill_(1);
  if (test.boxes == Boxes::kSaturated) {  // the two edges of the page in turn, 40 tokens each
    boxes.select(-1, 0).copy_(index.div(40, "floor").remainder(2) * 900 + at::randint(0, 8, {test.length}, at::kLong));
    boxes.select(-1, 3).copy_(index.div(130, "floor").remainder(3) * 400);
  }
  if (test.boxes == Boxes::kLines) {
    boxes.select(-1, 0).copy_(index.remainder(16) * 60);
    boxes.select(-1, 3).copy_(index.div(16, "floor").clamp_max(70) * 14);
  }
  return boxes;
}

at::Tensor MakeMask(const Case& test) {
  const at::Tensor mask = at::ones({test.batch, test.length}, at::kLong);
  switch (test.padding) {
    case Padding::kNone:
      break;
    case Padding::kTail:
      for (int64_t b = 0; b < test.batch; ++b) {
        const int64_t real = b == 0 ? test.length / 3 + 1 : test.length - test.length / 5;
        mask[b].narrow(0, real, test.length - real).zero_();
      }
      break;
    case Padding::kHoles:
      mask.copy_(at::randint(0, 3, {test.batch, test.length}, at::kLong).ne(0));
      mask[0].narrow(0, 0, std::min<int64_t>(70, test.length - 1)).zero_();
      mask.select(1, test.length - 1).fill_(1);
      break;
    case Padding::kOneSequence:
      mask[0].zero_();
      break;
  }
  return mask;
}

BiasSource MakeSource(const Case& test) {
  const auto buckets = [](int64_t largest, int count, int distance) {
    return at::tensor(at::ArrayRef<int64_t>(BucketTable(largest, count, distance)), at::kLong).to(at::kCUDA);
  };
  BiasSource source;
  source.relative_table = (at::randn({test.heads, kRelativeBuckets}) * test.deviation).to(at::kCUDA);
  source.x_table = (at::randn({test.heads, kSpatialBuckets}) * test.deviation).to(at::kCUDA);
  source.y_table = (at::randn({test.heads, kSpatialBuckets}) * test.deviation).to(at::kCUDA);
  source.relative_buckets = buckets(test.length, kRelativeBuckets, kRelativeMaxDistance);
  source.spatial_buckets = buckets(1023, kSpatialBuckets, kSpatialMaxDistance);
  source.positions =
      at::cat({at::arange(test.length - test.image, at::kLong), at::arange(test.image, at::kLong)}).to(at::kCUDA);
  source.boxes = MakeBoxes(test).to(at::kCUDA);
  source.attention_mask = MakeMask(test).to(at::kCUDA);
  return source;
}

// q, k and v as one (B, S, 3, H, D) tensor, and the gradient of the output.
struct Inputs {
  at::Tensor q, k, v, dout;
};

Inputs MakeInputs(const Case& test) {
  const at::Tensor qkv =
      at::randn({test.batch, test.length, 3, test.heads, kFusedHeadSize}).to(at::kBFloat16).to(at::kCUDA);
  const auto part = [&](int64_t i) { return qkv.select(2, i).transpose(1, 2); };
  const at::Tensor dout =
      at::randn({test.batch, test.length, test.heads, kFusedHeadSize}).to(at::kBFloat16).to(at::kCUDA);
  return {part(0), part(1), part(2), dout.transpose(1, 2)};
}

using Figures = std::vector<at::Tensor>;  // output, dq, dk, dv
constexpr const char* kNames[] = {"output", "dq", "dk", "dv"};

// Runs `forward` on leaves of this type and takes the gradients.
template <class Function>
Figures Differentiate(const Inputs& inputs, at::ScalarType type, const Function& forward) {
  const auto leaf = [&](const at::Tensor& t) { return t.to(type).detach().requires_grad_(); };
  const at::Tensor q = leaf(inputs.q), k = leaf(inputs.k), v = leaf(inputs.v);
  const at::Tensor output = forward(q, k, v);
  output.backward(inputs.dout.to(type));
  return {output.detach(), q.grad(), k.grad(), v.grad()};
}

// In fp64, with the bias (B, H, S, S) or none and the kept probabilities; rows without a key are 0.
Figures Exact(const Inputs& inputs, const at::Tensor& bias, const at::Tensor& attention_mask, const at::Tensor& keep,
              double kept) {
  return Differentiate(inputs, at::kDouble, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    at::Tensor scores = at::matmul(q, k.transpose(-1, -2));
    if (bias.defined()) scores = scores + bias;
    const at::Tensor real = attention_mask.unsqueeze(1).unsqueeze(1).ne(0);
    scores = (scores / 8).masked_fill(real.logical_not(), -1e300);
    const at::Tensor probabilities = at::softmax(scores, -1) * real.any(-1, /*keepdim=*/true).to(at::kDouble);
    return at::matmul(probabilities * keep.to(at::kDouble) / kept, v);
  });
}

at::Tensor Bias(const BiasSource& source) {
  BiasSource exact = source;
  for (at::Tensor* table : {&exact.relative_table, &exact.x_table, &exact.y_table}) *table = table->to(at::kDouble);
  return RelativeBias(exact) + SpatialBias(exact);
}

// With tables that train.
BiasSource Trained(const BiasSource& source) {
  BiasSource trained = source;
  for (at::Tensor* table : {&trained.relative_table, &trained.x_table, &trained.y_table}) {
    *table = table->detach().clone().requires_grad_();
  }
  return trained;
}

constexpr const char* kTableNames[] = {"relative", "x", "y"};

Figures TableGradients(const BiasSource& trained) {
  return {trained.relative_table.grad(), trained.x_table.grad(), trained.y_table.grad()};
}

Figures ExactTableGradients(const Inputs& inputs, const BiasSource& source, const at::Tensor& keep, double kept) {
  const BiasSource trained = Trained(source);
  Exact(inputs, Bias(trained), trained.attention_mask, keep, kept);
  return TableGradients(trained);
}

double SquareSum(const at::Tensor& tensor) { return tensor.to(at::kDouble).square().sum().item<double>(); }

// Of one table, relative to the norm of all three: where all boxes are equal an axis has one entry, whose gradient is 0
// but for rounding. For one token, where all are 0, to that of the gradient that comes in.
double TableError(const Figures& actual, const Figures& expected, size_t table, const Inputs& inputs) {
  double scale = 0;
  for (const at::Tensor& gradient : expected) scale += SquareSum(gradient);
  if (inputs.q.size(2) == 1) scale = SquareSum(inputs.dout);
  return std::sqrt(SquareSum(actual[table].to(at::kDouble) - expected[table].to(at::kDouble)) / scale);
}

// Relative to the norm; for one token, whose dq and dk are 0, to that of the gradient that comes in.
double Error(const at::Tensor& actual, const at::Tensor& expected, const Inputs& inputs) {
  const double scale =
      inputs.q.size(2) == 1 ? inputs.dout.to(at::kDouble).norm().item<double>() : expected.norm().item<double>();
  return (actual.to(at::kDouble) - expected).norm().item<double>() / scale;
}

class GpuFused : public testing::TestWithParam<FusedPath> {
 protected:
  void SetUp() override {
    static const auto* const gpu = new absl::StatusOr<std::unique_ptr<CudaDevice>>(OpenCudaDevice());
    if (!gpu->ok()) GTEST_SKIP() << gpu->status().message();
    const int capability = (*gpu)->get()->Info().compute_capability;
    if (capability < 80) GTEST_SKIP() << "needs compute capability 8.0";
    if (GetParam() == FusedPath::kHopper && capability / 10 != 9) GTEST_SKIP() << "needs compute capability 9.x";
    const FusedPath path = GetParam();
    kernels_ = OpenFusedAttention(&path);
    at::manual_seed(4);
  }

  Figures Run(const Inputs& inputs, const std::shared_ptr<const FusedState>& state, const FusedDropout& dropout) const {
    return Differentiate(inputs, at::kBFloat16, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
      return ForwardFused(q, k, v, state, dropout);
    });
  }

  at::Tensor Keep(const FusedShape& shape, const FusedDropout& dropout) const {
    const at::Tensor keep = at::empty({shape.batch, shape.heads, shape.length, shape.length},
                                      at::TensorOptions(at::kCUDA).dtype(at::kByte));
    kernels_->KeepMask(shape, dropout, keep.mutable_data_ptr<uint8_t>());
    return keep;
  }

  Figures RunTables(const Inputs& inputs, const Case& test, const BiasSource& source,
                    const FusedDropout& dropout) const {
    AttentionProblem problem = ProblemOf(test);
    problem.bias_gradients = true;
    const BiasSource trained = Trained(source);
    Run(inputs, PrepareFused(kernels_, problem, trained), dropout);
    return TableGradients(trained);
  }

  void CheckTables(const Case& test) {
    const BiasSource source = MakeSource(test);
    const Inputs inputs = MakeInputs(test);
    const FusedDropout dropout = MakeFusedDropout(17, 5, test.dropout);
    const Figures figures = RunTables(inputs, test, source, dropout);
    const Figures exact =
        ExactTableGradients(inputs, source, Keep(ShapeOf(test), dropout), dropout.threshold / 65536.0);
    std::printf("S %4ld heads %3ld boxes %d padding %d dropout %.1f, tables:", test.length, test.heads,
                static_cast<int>(test.boxes), static_cast<int>(test.padding), test.dropout);
    for (size_t i = 0; i < figures.size(); ++i) {
      const double error = TableError(figures, exact, i, inputs);
      std::printf(" %s %.5f", kTableNames[i], error);
      const bool few_keys = test.length <= 65 && test.dropout > 0;  // as in Check
      EXPECT_LT(error, few_keys ? 0.015 : 0.004) << kTableNames[i] << " S=" << test.length;
    }
    std::printf("\n");
  }

  void Check(const Case& test) {
    const BiasSource source = MakeSource(test);
    const Inputs inputs = MakeInputs(test);
    const auto state = PrepareFused(kernels_, ProblemOf(test), source);
    const FusedDropout dropout = MakeFusedDropout(17, 5, test.dropout);
    const Figures figures = Run(inputs, state, dropout);
    const Figures exact = Exact(inputs, test.biased ? Bias(source) : at::Tensor(), source.attention_mask,
                                Keep(state->shape, dropout), dropout.threshold / 65536.0);
    std::printf("S %4ld bias %d boxes %d padding %d dropout %.1f:", test.length, test.biased,
                static_cast<int>(test.boxes), static_cast<int>(test.padding), test.dropout);
    for (size_t i = 0; i < figures.size(); ++i) {
      const double error = Error(figures[i], exact[i], inputs);
      std::printf(" %s %.4f", kNames[i], error);
      // Where a row has few keys and some of those are dropped, dq and dk are small differences of numbers of which
      // one, the product of dout and out, comes from a rounded output; as in every flash attention.
      const bool few_keys = test.length <= 65 && test.dropout > 0 && (i == 1 || i == 2);
      EXPECT_LT(error, few_keys ? 0.015 : 0.004) << kNames[i] << " S=" << test.length;
    }
    std::printf("\n");
  }

  std::shared_ptr<FusedAttention> kernels_;
};

// Calls check(case) for each, without dropout and with it.
template <class Function>
void AtEveryLengthAndPadding(const Function& check) {
  for (const int64_t length : {1, 7, 64, 65, 197, 512, 709, 1024, 2048}) {
    for (const Padding padding : {Padding::kNone, Padding::kTail, Padding::kHoles, Padding::kOneSequence}) {
      for (const double dropout : {0.0, 0.1}) {
        Case test;
        test.length = length;
        test.heads = length > 1000 ? 1 : 3;
        test.padding = padding;
        test.dropout = dropout;
        test.image = length == 709 ? 197 : 0;
        check(test);
      }
    }
  }
}

template <class Function>
void WhereverTheBoxesAre(const Function& check) {
  for (const Boxes boxes : {Boxes::kRandom, Boxes::kEqual, Boxes::kSaturated, Boxes::kLines}) {
    for (const int64_t length : {200, 512}) {
      Case test;
      test.length = length;
      test.boxes = boxes;
      test.dropout = 0.1;
      check(test);
    }
  }
}

TEST_P(GpuFused, AgreesWithFp64AtEveryLengthAndPadding) {
  AtEveryLengthAndPadding([&](Case test) {
    for (const bool biased : {false, true}) {
      test.biased = biased;
      Check(test);
    }
  });
}

TEST_P(GpuFused, AgreesWithFp64WhereverTheBoxesAre) {
  WhereverTheBoxesAre([&](const Case& test) { Check(test); });
}

// No worse than the paths that LibTorch has: Flash v2 without biases, the efficient one with a dense one.
TEST_P(GpuFused, IsAsExactAsThePublicPaths) {
  for (const bool biased : {false, true}) {
    Case test;
    test.length = 512;
    test.biased = biased;
    const AttentionProblem problem = ProblemOf(test);
    const BiasSource source = MakeSource(test);
    const Inputs inputs = MakeInputs(test);
    const auto state = PrepareFused(kernels_, problem, source);
    const FusedDropout none = MakeFusedDropout(0, 0, 0);
    const Figures exact =
        Exact(inputs, biased ? Bias(source) : at::Tensor(), source.attention_mask, Keep(state->shape, none), 1);
    const Backend& peer = *FindBackend(biased ? "efficient" : "flash2").value();
    const StepTensors step = peer.prepare(problem, source);
    const Figures theirs =
        Differentiate(inputs, at::kBFloat16, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
          return peer.forward({q, k, v, step, 0});
        });
    const Figures ours = Run(inputs, state, none);
    for (size_t i = 0; i < ours.size(); ++i) {
      const double error = Error(ours[i], exact[i], inputs), their_error = Error(theirs[i], exact[i], inputs);
      std::printf("%s: fused %.5f, %s %.5f\n", kNames[i], error, peer.name, their_error);
      EXPECT_LT(error, 1.05 * their_error) << kNames[i] << " biased " << biased;
    }
  }
}

// The check can tell: an axis left out, two swapped, or all transposed.
TEST_P(GpuFused, WrongBiasesAreFound) {
  Case test;
  test.length = 300;
  const BiasSource source = MakeSource(test);
  const Inputs inputs = MakeInputs(test);
  const auto state = PrepareFused(kernels_, ProblemOf(test), source);
  const FusedDropout none = MakeFusedDropout(0, 0, 0);
  const Figures figures = Run(inputs, state, none);
  BiasSource no_x = source, no_positions = source, swapped = source;
  no_x.x_table = at::zeros_like(source.x_table);
  no_positions.relative_table = at::zeros_like(source.relative_table);
  std::swap(swapped.x_table, swapped.y_table);
  const at::Tensor keep = Keep(state->shape, none);
  for (const at::Tensor& bias : {Bias(no_x), Bias(no_positions), Bias(swapped), Bias(source).transpose(-1, -2)}) {
    const Figures wrong = Exact(inputs, bias, source.attention_mask, keep, 1);
    for (size_t i = 0; i < figures.size(); ++i) EXPECT_GT(Error(figures[i], wrong[i], inputs), 0.1) << kNames[i];
  }
}

TEST_P(GpuFused, SameSeedGivesTheSameBits) {
  Case test;
  test.length = 512;
  test.padding = Padding::kTail;
  const BiasSource source = MakeSource(test);
  const Inputs inputs = MakeInputs(test);
  const auto state = PrepareFused(kernels_, ProblemOf(test), source);
  const FusedDropout dropout = MakeFusedDropout(3, 4, 0.1);
  const Figures first = Run(inputs, state, dropout), second = Run(inputs, state, dropout);
  for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(first[i].equal(second[i])) << kNames[i];
  EXPECT_FALSE(first[0].equal(Run(inputs, state, MakeFusedDropout(3, 5, 0.1))[0]));
}

TEST_P(GpuFused, TableGradientsAgreeWithFp64AtEveryLengthAndPadding) {
  AtEveryLengthAndPadding([&](const Case& test) { CheckTables(test); });
}

TEST_P(GpuFused, TableGradientsAgreeWithFp64WhereverTheBoxesAre) {
  WhereverTheBoxesAre([&](const Case& test) { CheckTables(test); });
}

// So many heads that each has one block, which takes all tiles of all sequences.
TEST_P(GpuFused, TableGradientsOfManyTilesAreOneBlocksSum) {
  Case test;
  test.batch = 3;
  test.heads = 400;
  test.length = 200;
  test.padding = Padding::kOneSequence;
  ASSERT_EQ(FusedTableGroups(ShapeOf(test)), 1);
  CheckTables(test);
}

// Gradients of whatever size: by a power of two larger or smaller they are the same bits but for the exponent.
TEST_P(GpuFused, TableGradientsScaleWithTheLoss) {
  Case test;
  test.length = 300;
  test.dropout = 0.1;
  const BiasSource source = MakeSource(test);
  Inputs inputs = MakeInputs(test);
  const FusedDropout dropout = MakeFusedDropout(3, 4, 0.1);
  const Figures figures = RunTables(inputs, test, source, dropout);
  const at::Tensor dout = inputs.dout;
  for (const int exponent : {-50, 30}) {
    inputs.dout = dout * std::ldexp(1.0, exponent);
    const Figures scaled = RunTables(inputs, test, source, dropout);
    for (size_t i = 0; i < figures.size(); ++i) {
      EXPECT_TRUE(scaled[i].equal(figures[i] * std::ldexp(1.0, exponent))) << kTableNames[i] << " 2^" << exponent;
    }
  }
}

TEST_P(GpuFused, TableGradientsAreNotANumberWhereTheLossIsNot) {
  Case test;
  test.length = 130;
  const BiasSource source = MakeSource(test);
  const Inputs inputs = MakeInputs(test);
  inputs.dout[1][2][70][5] = std::numeric_limits<float>::quiet_NaN();
  for (const at::Tensor& gradient : RunTables(inputs, test, source, MakeFusedDropout(0, 0, 0))) {
    // All buckets of that head but the one of a positive difference of 0, which nothing is in.
    const int64_t buckets = gradient.size(1);
    EXPECT_EQ(gradient[2].isnan().sum().item<int64_t>(), buckets - 1);
    EXPECT_EQ(gradient[2][buckets / 2].item<float>(), 0);
    EXPECT_TRUE(gradient.narrow(0, 0, 2).isfinite().all().item<bool>());
  }
}

// The check can tell: an axis left out, two swapped, all transposed, another dropout.
TEST_P(GpuFused, WrongTableGradientsAreFound) {
  Case test;
  test.length = 300;
  test.dropout = 0.1;
  const BiasSource source = MakeSource(test);
  const Inputs inputs = MakeInputs(test);
  const FusedDropout dropout = MakeFusedDropout(3, 4, 0.1);
  const Figures figures = RunTables(inputs, test, source, dropout);
  const at::Tensor keep = Keep(ShapeOf(test), dropout);
  const double kept = dropout.threshold / 65536.0;
  const auto worst = [&](const Figures& wrong) {
    double error = 0;
    for (size_t i = 0; i < figures.size(); ++i) error = std::max(error, TableError(figures, wrong, i, inputs));
    return error;
  };
  EXPECT_LT(worst(ExactTableGradients(inputs, source, keep, kept)), 0.004);
  BiasSource no_x = source, swapped = source, transposed = source;
  no_x.x_table = at::zeros_like(source.x_table);
  swapped.boxes = source.boxes.flip(-1);  // y, and then x
  transposed.positions = source.positions.neg();
  transposed.boxes = source.boxes.neg();
  for (const BiasSource& wrong : {no_x, swapped, transposed}) {
    EXPECT_GT(worst(ExactTableGradients(inputs, wrong, keep, kept)), 0.1);
  }
  const at::Tensor other = Keep(ShapeOf(test), MakeFusedDropout(3, 5, 0.1));
  EXPECT_GT(worst(ExactTableGradients(inputs, source, other, kept)), 0.1);
  EXPECT_GT(worst({figures[0], figures[2], figures[1]}), 0.1);
}

TEST_P(GpuFused, SameSeedGivesTheSameBitsOfTableGradients) {
  for (const Boxes boxes : {Boxes::kRandom, Boxes::kLines}) {
    Case test;
    test.batch = 8;
    test.heads = 12;
    test.length = 512;
    test.boxes = boxes;
    test.padding = Padding::kTail;
    const BiasSource source = MakeSource(test);
    const Inputs inputs = MakeInputs(test);
    const FusedDropout dropout = MakeFusedDropout(3, 4, 0.1);
    const Figures first = RunTables(inputs, test, source, dropout), second = RunTables(inputs, test, source, dropout);
    for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(first[i].equal(second[i])) << kTableNames[i];
  }
}

// The exported mask is what DropoutBits says; its rate, and how often two masks agree, are as independence has them.
TEST_P(GpuFused, DropoutIsIndependentAcrossHeadsRowsAndSteps) {
  const FusedShape shape{2, 3, 512, false};
  const FusedDropout first = kernels_->Draw(0.1), second = kernels_->Draw(0.1);
  const at::Tensor keep = Keep(shape, first).to(at::kDouble), next = Keep(shape, second).to(at::kDouble);
  const at::Tensor sample = keep[1][2].narrow(0, 0, 40).to(at::kCPU);
  for (uint32_t i = 0; i < 40; ++i) {
    for (uint32_t j = 0; j < 512; ++j) {
      ASSERT_EQ(sample[i][j].item<double>() == 1, DropoutBits(first, 5, i, j) < first.threshold) << i << " " << j;
    }
  }
  const double rate = first.threshold / 65536.0;
  EXPECT_NEAR(rate, 0.9, 1.0 / 65536);
  EXPECT_NEAR(keep.mean().item<double>(), rate, 0.002);
  const auto both = [](const at::Tensor& a, const at::Tensor& b) { return (a * b).mean().item<double>(); };
  EXPECT_NEAR(both(keep, next), rate * rate, 0.002) << "steps";
  EXPECT_NEAR(both(keep.select(1, 0), keep.select(1, 1)), rate * rate, 0.002) << "heads";
  EXPECT_NEAR(both(keep[0], keep[1]), rate * rate, 0.002) << "sequences";
  EXPECT_NEAR(both(keep.narrow(2, 0, 511), keep.narrow(2, 1, 511)), rate * rate, 0.002) << "rows";
  EXPECT_NEAR(both(keep.narrow(3, 0, 511), keep.narrow(3, 1, 511)), rate * rate, 0.002) << "keys";
}

INSTANTIATE_TEST_SUITE_P(Paths, GpuFused, testing::Values(FusedPath::kAmpere, FusedPath::kHopper),
                         [](const testing::TestParamInfo<FusedPath>& path) {
                           return path.param == FusedPath::kAmpere ? "Ampere" : "Hopper";
                         });

}  // namespace
}  // namespace attnfleet::trainer
