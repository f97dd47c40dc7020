#include "worker/trainer/attention/filters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "worker/trainer/attention/backends.h"
#include "worker/trainer/cuda/fused_random.h"

namespace attnfleet::trainer {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// What every path can do: the published benchmark on an H100, attention's output dropped.
AttentionProblem Published() {
  AttentionProblem problem;
  problem.cuda = true;
  problem.type = at::kBFloat16;
  problem.batch = 32;
  problem.heads = 12;
  problem.sequence_length = 512;
  problem.head_size = 64;
  problem.compute_capability = 90;
  return problem;
}

std::string Refusal(const char* backend, const std::function<void(AttentionProblem&)>& change) {
  AttentionProblem problem = Published();
  change(problem);
  return (*FindBackend(backend))->refuse(problem).value_or("");
}

TEST(Filters, EveryBackendRunsThePublishedBenchmark) {
  for (const Backend* backend : Backends()) EXPECT_EQ(backend->refuse(Published()), std::nullopt) << backend->name;
}

TEST(Filters, FirstReasonComesAfterTheBackendsName) {
  AttentionProblem problem = Published();
  problem.padded = problem.relative_bias = true;
  EXPECT_EQ(FirstRefusal("x", problem, {Ampere, NoPadding, NoBias}),
            "x: Flash Attention v2 takes no padding mask; give sequences of equal length");
  EXPECT_EQ(FirstRefusal("x", problem, {Ampere}), std::nullopt);
}

TEST(Filters, Flash2TakesNoBiasAndNoPadding) {
  EXPECT_THAT(Refusal("flash2", [](AttentionProblem& p) { p.relative_bias = true; }),
              StartsWith("flash2: Flash Attention v2 takes no bias"));
  EXPECT_THAT(Refusal("flash2", [](AttentionProblem& p) { p.spatial_bias = true; }), HasSubstr("takes no bias"));
  EXPECT_THAT(Refusal("flash2", [](AttentionProblem& p) { p.padded = true; }), HasSubstr("no padding mask"));
  EXPECT_EQ(Refusal("flash2", [](AttentionProblem& p) { p.dropout = 0.1; }), "");
}

TEST(Filters, Flash2CudnnAndFusedRunInBf16Alone) {
  for (const char* backend : {"flash2", "cudnn", "fused"}) {
    EXPECT_THAT(Refusal(backend, [](AttentionProblem& p) { p.type = at::kFloat; }),
                HasSubstr("runs in bf16 alone, not in Float"));
  }
  EXPECT_EQ(Refusal("efficient", [](AttentionProblem& p) { p.type = at::kFloat; }), "");
}

TEST(Filters, FusedDropsUpToWhatItsRandomBitsAllow) {
  const auto drop = [](double p) { return Refusal("fused", [=](AttentionProblem& problem) { problem.dropout = p; }); };
  EXPECT_EQ(drop(kLargestFusedDropout), "");
  EXPECT_EQ(drop(0.97), "fused: drops probabilities with at most 0.96878, not 0.97");
}

TEST(Filters, HeadSizes) {
  const auto size = [](const char* backend, int64_t head_size, int capability = 90) {
    return Refusal(backend, [=](AttentionProblem& p) {
      p.head_size = head_size;
      p.compute_capability = capability;
    });
  };
  EXPECT_EQ(size("flash2", 256), "");
  EXPECT_THAT(size("flash2", 264), HasSubstr("heads of at most 256, not 264"));
  EXPECT_THAT(size("flash2", 60), HasSubstr("a multiple of 8, not 60"));
  EXPECT_EQ(size("cudnn", 256), "");
  EXPECT_THAT(size("cudnn", 256, 80), HasSubstr("heads of at most 128"));
  EXPECT_THAT(size("cudnn", 60), HasSubstr("a multiple of 8"));
  EXPECT_THAT(size("efficient", 60), HasSubstr("a multiple of 8"));
  EXPECT_EQ(size("math", 60), "");
  EXPECT_THAT(size("fused", 32), HasSubstr("takes heads of 64, not 32"));
}

TEST(Filters, OldGpus) {
  for (const char* backend : {"flash2", "cudnn", "fused"}) {
    EXPECT_THAT(Refusal(backend, [](AttentionProblem& p) { p.compute_capability = 75; }),
                HasSubstr("compute capability 8.0 or later, this one has 7.5"));
  }
  EXPECT_EQ(Refusal("efficient", [](AttentionProblem& p) { p.compute_capability = 75; }), "");
}

TEST(Filters, CudnnsTraps) {
  EXPECT_EQ(Refusal("cudnn", [](AttentionProblem& p) { p.dropout = 0.1; }), "");
  EXPECT_THAT(Refusal("cudnn", [](AttentionProblem& p) { p.sequence_length = 1; }), HasSubstr("one token"));
  EXPECT_THAT(Refusal("cudnn", [](AttentionProblem& p) { p.bias_gradients = true; }), HasSubstr("no gradient"));
  for (const int64_t length : {64, 192, 320}) {
    EXPECT_EQ(Refusal("cudnn", [=](AttentionProblem& p) { p.sequence_length = length; }), "");
    EXPECT_THAT(Refusal("cudnn",
                        [=](AttentionProblem& p) {
                          p.sequence_length = length;
                          p.padded = true;
                        }),
                HasSubstr("its dQ can be NaN"));
    EXPECT_THAT(Refusal("cudnn",
                        [=](AttentionProblem& p) {
                          p.sequence_length = length;
                          p.spatial_bias = true;
                        }),
                HasSubstr("its dQ can be NaN"));
  }
  EXPECT_EQ(Refusal("cudnn",
                    [](AttentionProblem& p) {
                      p.padded = p.relative_bias = p.spatial_bias = true;
                      p.sequence_length = 709;
                    }),
            "");
}

TEST(Filters, FusedTakesTrainedBiasAndPaddingOfAnyLength) {
  for (const int64_t length : {1, 64, 709, 8192}) {
    EXPECT_EQ(Refusal("fused",
                      [=](AttentionProblem& p) {
                        p.padded = p.relative_bias = p.spatial_bias = true;
                        p.sequence_length = length;
                        p.dropout = 0.1;
                        p.bias_gradients = true;
                      }),
              "");
  }
  EXPECT_THAT(Refusal("fused", [](AttentionProblem& p) { p.sequence_length = 200000; }),
              HasSubstr("at most 131072 tokens, not 200000"));
}

TEST(Filters, OnlyTheKernelsThatRunOnTheCpuAreOfferedThere) {
  std::vector<std::string> names;
  for (const Backend* backend : Backends()) {
    if (backend->cpu) names.emplace_back(backend->name);
  }
  EXPECT_THAT(names, testing::ElementsAre("eager", "math", "sdpa"));
}

}  // namespace
}  // namespace attnfleet::trainer
