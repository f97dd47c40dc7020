#include "worker/trainer/attention/dense_mask.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "worker/trainer/bias.h"
#include "worker/trainer/buckets.h"
#include "worker/trainer/model_config.h"

namespace attnfleet::trainer {
namespace {

constexpr int64_t kBatch = 3, kHeads = 2, kLength = 21;

AttentionProblem Problem(bool relative, bool spatial, bool padded) {
  AttentionProblem problem;
  problem.type = at::kBFloat16;
  problem.batch = kBatch;
  problem.heads = kHeads;
  problem.sequence_length = kLength;
  problem.head_size = 64;
  problem.relative_bias = relative;
  problem.spatial_bias = spatial;
  problem.padded = padded;
  return problem;
}

BiasSource Source() {
  const auto buckets = [](int64_t largest, int count, int distance) {
    return at::tensor(at::ArrayRef<int64_t>(BucketTable(largest, count, distance)), at::kLong);
  };
  BiasSource source;
  source.relative_table = at::randn({kHeads, kRelativeBuckets});
  source.x_table = at::randn({kHeads, kSpatialBuckets});
  source.y_table = at::randn({kHeads, kSpatialBuckets});
  source.relative_buckets = buckets(64, kRelativeBuckets, kRelativeMaxDistance);
  source.spatial_buckets = buckets(1023, kSpatialBuckets, kSpatialMaxDistance);
  source.positions = at::arange(kLength, at::kLong);
  source.boxes = at::randint(0, 1001, {kBatch, kLength, 4}, at::kLong);
  source.attention_mask = at::ones({kBatch, kLength}, at::kLong);
  source.attention_mask[1].narrow(0, 15, 6).zero_();
  return source;
}

TEST(DenseMask, IsNothingWithoutBiasAndPadding) {
  EXPECT_FALSE(DenseMask(Problem(false, false, false), Source()).defined());
}

TEST(DenseMask, IsNoLargerThanItHasToBe) {
  const BiasSource source = Source();
  using Shape = std::vector<int64_t>;
  EXPECT_EQ(DenseMask(Problem(true, false, false), source).sizes(), (Shape{1, kHeads, kLength, kLength}));
  EXPECT_EQ(DenseMask(Problem(false, true, false), source).sizes(), (Shape{kBatch, kHeads, kLength, kLength}));
  EXPECT_EQ(DenseMask(Problem(false, false, true), source).sizes(), (Shape{kBatch, 1, 1, kLength}));
  EXPECT_EQ(DenseMask(Problem(false, false, true), source, MaskRows::kAll).sizes(),
            (Shape{kBatch, 1, kLength, kLength}));
}

// cuDNN misreads a mask of another type, the memory-efficient kernels want rows at multiples of 8 elements.
TEST(DenseMask, HasTheTypeAndTheAlignmentThatKernelsWant) {
  for (int kind = 1; kind < 8; ++kind) {
    for (const bool gradients : {false, true}) {
      AttentionProblem problem = Problem((kind & 1) != 0, (kind & 2) != 0, (kind & 4) != 0);
      problem.bias_gradients = gradients && (kind & 3) != 0;
      const at::Tensor mask = DenseMask(problem, Source());
      EXPECT_EQ(mask.scalar_type(), at::kBFloat16);
      EXPECT_EQ(mask.stride(3), 1);
      for (int64_t dimension = 0; dimension < 3; ++dimension) EXPECT_EQ(mask.stride(dimension) % 8, 0) << kind;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(mask.data_ptr()) % 16, 0u);
    }
  }
}

TEST(DenseMask, IsBiasBySquareRootPlusPadding) {
  const BiasSource source = Source();
  AttentionProblem problem = Problem(true, true, true);
  problem.type = at::kFloat;
  const at::Tensor mask = DenseMask(problem, source);
  const at::Tensor bias = (RelativeBias(source) + SpatialBias(source)) / 8;
  const at::Tensor real = source.attention_mask.to(at::kBool).unsqueeze(1).unsqueeze(1).expand_as(mask);
  EXPECT_LT((mask - bias).abs().masked_select(real).max().item<double>(), 1e-6);
  EXPECT_LT(mask.masked_select(~real).max().item<float>(), -9e5F);
}

TEST(DenseMask, PaddingIsFiniteInBf16) {
  EXPECT_TRUE(DenseMask(Problem(true, true, true), Source()).isfinite().all().item<bool>());
}

}  // namespace
}  // namespace attnfleet::trainer
