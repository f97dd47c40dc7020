// Every attention path on the GPU: against eager in fp64, and what LibTorch 2.11 and cuDNN are known to get wrong. The
// figures are printed, since some of these tests decide whether a filter is still needed.

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "worker/trainer/attention/backends.h"
#include "worker/trainer/buckets.h"
#include "worker/trainer/cuda_module.h"
#include "worker/trainer/model_config.h"

namespace attnfleet::trainer {
namespace {

constexpr int64_t kHeadSize = 64;

class GpuAttention : public testing::Test {
 protected:
  void SetUp() override {
    static const auto* const gpu = new absl::StatusOr<std::unique_ptr<CudaDevice>>(OpenCudaDevice());
    if (!gpu->ok()) GTEST_SKIP() << gpu->status().message();
    capability_ = (*gpu)->get()->Info().compute_capability;
    at::manual_seed(3);
  }

  AttentionProblem Problem(int64_t batch, int64_t heads, int64_t length, bool biased, bool padded) const {
    AttentionProblem problem;
    problem.cuda = true;
    problem.type = at::kBFloat16;
    problem.batch = batch;
    problem.heads = heads;
    problem.sequence_length = length;
    problem.head_size = kHeadSize;
    problem.relative_bias = problem.spatial_bias = biased;
    problem.padded = padded;
    problem.compute_capability = capability_;
    return problem;
  }

  int capability_ = 0;
};

// Tables of deviation `deviation` around `mean`; the last fifth of every second sequence is padding where asked.
BiasSource Source(const AttentionProblem& problem, double deviation, double mean = 0) {
  const auto buckets = [](int64_t largest, int count, int distance) {
    return at::tensor(at::ArrayRef<int64_t>(BucketTable(largest, count, distance)), at::kLong).to(at::kCUDA);
  };
  const int64_t length = problem.sequence_length;
  BiasSource source;
  source.relative_table = (at::randn({problem.heads, kRelativeBuckets}) * deviation + mean).to(at::kCUDA);
  source.x_table = (at::randn({problem.heads, kSpatialBuckets}) * deviation).to(at::kCUDA);
  source.y_table = (at::randn({problem.heads, kSpatialBuckets}) * deviation).to(at::kCUDA);
  source.relative_buckets = buckets(length, kRelativeBuckets, kRelativeMaxDistance);
  source.spatial_buckets = buckets(1023, kSpatialBuckets, kSpatialMaxDistance);
  source.positions = at::arange(length, at::kLong).to(at::kCUDA);
  source.boxes = at::randint(0, 1001, {problem.batch, length, 4}, at::kLong).to(at::kCUDA);
  at::Tensor mask = at::ones({problem.batch, length}, at::kLong);
  if (problem.padded) {
    for (int64_t b = 1; b < problem.batch; b += 2) mask[b].narrow(0, length - length / 5, length / 5).zero_();
  }
  source.attention_mask = mask.to(at::kCUDA);
  return source;
}

BiasSource Double(BiasSource source) {
  for (at::Tensor* table : {&source.relative_table, &source.x_table, &source.y_table}) *table = table->to(at::kDouble);
  return source;
}

// As the model hands them over: (B, S, H, D) in memory.
at::Tensor Input(const AttentionProblem& problem) {
  return at::randn({problem.batch, problem.sequence_length, problem.heads, kHeadSize})
      .to(at::kBFloat16)
      .to(at::kCUDA)
      .transpose(1, 2);
}

struct Inputs {
  at::Tensor q, k, v, gradient;
};

Inputs MakeInputs(const AttentionProblem& problem) {
  return {Input(problem), Input(problem), Input(problem), Input(problem)};
}

using Figures = std::vector<at::Tensor>;  // output, dq, dk, dv
constexpr const char* kNames[] = {"output", "dq", "dk", "dv"};

Figures RunPath(const Backend& backend, const AttentionProblem& problem, const BiasSource& source,
                const Inputs& inputs) {
  const auto leaf = [&](const at::Tensor& t) { return t.to(problem.type).detach().requires_grad_(); };
  const at::Tensor q = leaf(inputs.q), k = leaf(inputs.k), v = leaf(inputs.v);
  const at::Tensor output = backend.forward({q, k, v, backend.prepare(problem, source), 0});
  output.backward(inputs.gradient.to(problem.type));
  return {output.detach().to(at::kDouble), q.grad().to(at::kDouble), k.grad().to(at::kDouble),
          v.grad().to(at::kDouble)};
}

bool Finite(const Figures& figures) {
  return std::all_of(figures.begin(), figures.end(),
                     [](const at::Tensor& figure) { return figure.isfinite().all().item<bool>(); });
}

// Relative to the norm; dq and dk of a sequence of one token are 0.
double Error(const at::Tensor& actual, const at::Tensor& expected) {
  return (actual - expected).norm().item<double>() / std::max(expected.norm().item<double>(), 1e-3);
}

TEST_F(GpuAttention, EveryPathAgreesWithEagerInFp64) {
  const Backend& eager = *FindBackend("eager").value();
  std::set<std::string> ran;
  for (const int64_t length : {1, 7, 64, 65, 197, 512, 709}) {
    for (int kind = 0; kind < 4; ++kind) {
      const bool biased = (kind & 1) != 0, padded = (kind & 2) != 0;
      const AttentionProblem problem = Problem(2, 3, length, biased, padded);
      AttentionProblem exact_problem = problem;
      exact_problem.type = at::kDouble;
      const BiasSource source = Source(problem, 4);
      const Inputs inputs = MakeInputs(problem);
      const Figures exact = RunPath(eager, exact_problem, Double(source), inputs);
      const Figures rounded = RunPath(eager, problem, source, inputs);
      for (const Backend* backend : Backends()) {
        if (!backend->cuda) continue;
        if (const auto reason = backend->refuse(problem)) {
          std::printf("S %4ld bias %d padding %d %-9s %s\n", length, biased, padded, backend->name, reason->c_str());
          continue;
        }
        ran.insert(backend->name);
        const Figures figures = RunPath(*backend, problem, source, inputs);
        ASSERT_TRUE(Finite(figures)) << backend->name << " S=" << length;
        std::printf("S %4ld bias %d padding %d %-9s", length, biased, padded, backend->name);
        for (size_t i = 0; i < figures.size(); ++i) {
          const double error = Error(figures[i], exact[i]);
          std::printf(" %s %.4f", kNames[i], error);
          EXPECT_LT(error, std::max(0.02, 3 * Error(rounded[i], exact[i])))
              << backend->name << " " << kNames[i] << " S=" << length << " bias " << biased << " padding " << padded;
        }
        std::printf("\n");
      }
    }
  }
  EXPECT_EQ(ran.size(), Backends().size());  // each at some length
}

// A sequence that is all padding next to a real one: nothing that is no number, and the same output as eager.
// LibTorch 2.11's trap: see gradient_layout.h. One layout after the other at the same shape, so that the second meets
// what was kept for the first.
TEST_F(GpuAttention, GradientsDoNotDependOnTheLayoutOfTheirOwn) {
  for (const int64_t length : {128, 256}) {
    const AttentionProblem problem = Problem(4, 3, length, /*biased=*/false, /*padded=*/false);
    const BiasSource source = Source(problem, 4);
    for (const Backend* backend : Backends()) {
      if (!backend->cuda || backend->refuse(problem)) continue;
      const Inputs strided = MakeInputs(problem);
      Inputs contiguous = strided;
      contiguous.gradient = strided.gradient.contiguous();
      const bool strided_first = length == 128;
      const Figures first = RunPath(*backend, problem, source, strided_first ? strided : contiguous);
      const Figures second = RunPath(*backend, problem, source, strided_first ? contiguous : strided);
      for (size_t i = 0; i < first.size(); ++i) {
        EXPECT_LT(Error(second[i], first[i]), 0.01) << backend->name << " " << kNames[i] << " S=" << length;
      }
    }
  }
}

TEST_F(GpuAttention, SequenceOfPaddingAloneIsFinite) {
  for (const int64_t length : {7, 65, 128, 192, 512, 709}) {
    for (const bool biased : {false, true}) {
      const AttentionProblem problem = Problem(2, 3, length, biased, /*padded=*/true);
      BiasSource source = Source(problem, 4);
      source.attention_mask[0].zero_();
      const Inputs inputs = MakeInputs(problem);
      const Figures expected = RunPath(*FindBackend("eager").value(), problem, source, inputs);
      for (const Backend* backend : Backends()) {
        if (!backend->cuda || backend->refuse(problem)) continue;
        const Figures figures = RunPath(*backend, problem, source, inputs);
        EXPECT_TRUE(Finite(figures)) << backend->name << " S=" << length << " bias " << biased;
        // Of the sequence that has real keys; nobody reads the other's rows.
        EXPECT_LT(Error(figures[0][1], expected[0][1]), 0.03) << backend->name << " S=" << length << " bias " << biased;
      }
    }
  }
}

// All scores near -120: cuDNN's dQ is NaN then, with a mask, at lengths with remainder 64 by 128. What is refused is
// run all the same and reported.
TEST_F(GpuAttention, GradientsAreFiniteWhereScoresAreLow) {
  for (const int64_t length : {64, 192, 320, 512, 709}) {
    const AttentionProblem problem = Problem(2, 3, length, /*biased=*/true, /*padded=*/false);
    const BiasSource source = Source(problem, 1, -120 * std::sqrt(64.0));
    const Inputs inputs = MakeInputs(problem);
    for (const Backend* backend : Backends()) {
      if (!backend->cuda || std::string(backend->name) == "flash2") continue;
      const bool refused = backend->refuse(problem).has_value();
      const bool finite = Finite(RunPath(*backend, problem, source, inputs));
      std::printf("S %4ld %-9s %s%s\n", length, backend->name, finite ? "finite" : "not finite",
                  refused ? ", refused" : "");
      EXPECT_TRUE(finite || refused) << backend->name << " S=" << length;
    }
  }
}

struct Dropout {
  double rate, scale;
};

// With q = k = 0 every probability is 1 / S. Where V holds the unit matrix for 64 keys, the output is their
// probabilities after dropout: 0, or 1 / S times the scale.
Dropout MeasureDropout(const Backend& backend, AttentionProblem problem, const BiasSource& source, double p,
                       int64_t first_key) {
  problem.dropout = p;
  const int64_t length = problem.sequence_length;
  const at::Tensor zeros = at::zeros_like(Input(problem));
  const at::Tensor v = at::zeros_like(zeros);
  v.narrow(2, first_key, kHeadSize).copy_(at::eye(kHeadSize));
  const StepTensors step = backend.prepare(problem, source);
  const at::Tensor output = backend.forward({zeros, zeros, v, step, p}).to(at::kDouble);
  const at::Tensor kept = output.ne(0).to(at::kDouble);
  return {1 - kept.mean().item<double>(),
          output.sum().item<double>() / kept.sum().item<double>() * static_cast<double>(length)};
}

TEST_F(GpuAttention, DropoutDropsAsManyAsAsked) {
  for (const double p : {0.1, 0.125}) {
    for (const int64_t length : {128, 192, 512, 709}) {
      for (const bool masked : {false, true}) {
        AttentionProblem problem = Problem(8, 12, length, masked, false);
        const BiasSource source = Source(problem, 0);
        for (const Backend* backend : Backends()) {
          if (!backend->cuda || backend->refuse(problem)) continue;  // of what it can do without dropout
          problem.dropout = p;
          const bool refused = backend->refuse(problem).has_value();
          problem.dropout = 0;
          for (const int64_t first_key : {int64_t{0}, length - kHeadSize}) {
            const Dropout dropout = MeasureDropout(*backend, problem, source, p, first_key);
            std::printf("p %.3f S %4ld mask %d keys from %4ld %-9s drops %.4f, scales %.4f%s\n", p, length, masked,
                        first_key, backend->name, dropout.rate, dropout.scale, refused ? " (refused)" : "");
            if (refused) continue;
            EXPECT_NEAR(dropout.rate, p, 0.004) << backend->name << " S=" << length << " mask " << masked;
            EXPECT_NEAR(dropout.scale, 1 / (1 - p), 0.01) << backend->name << " S=" << length << " mask " << masked;
          }
        }
      }
    }
  }
}

// Which kernel the dispatcher takes; never cuDNN's where that would be wrong.
TEST_F(GpuAttention, DispatcherIsKeptFromCudnnsTraps) {
  const Backend& sdpa = *FindBackend("sdpa").value();
  constexpr const char* kChoices[] = {"math", "flash", "efficient", "cudnn"};
  for (const int64_t length : {64, 128, 192, 512, 709}) {
    for (int kind = 0; kind < 4; ++kind) {
      AttentionProblem problem = Problem(2, 3, length, (kind & 1) != 0, false);
      problem.dropout = (kind & 2) != 0 ? 0.1 : 0;
      const Inputs inputs = MakeInputs(problem);
      const StepTensors step = sdpa.prepare(problem, Source(problem, 1));
      const std::optional<at::Tensor> mask = step.mask.defined() ? std::optional(step.mask) : std::nullopt;
      const int64_t choice = at::_fused_sdp_choice(inputs.q, inputs.k, inputs.v, mask, problem.dropout);
      std::printf("S %4ld bias %d dropout %.1f: %s\n", length, kind & 1, problem.dropout, kChoices[choice]);
      const bool trap = step.mask.defined() && length % 128 == 64;
      EXPECT_FALSE(trap && choice == 3) << length;
    }
  }
}

}  // namespace
}  // namespace attnfleet::trainer
