// The reference of the backend `fused` against eager in fp64.

#include "fused_reference.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "worker/trainer/attention/backends.h"
#include "worker/trainer/bias.h"
#include "worker/trainer/buckets.h"
#include "worker/trainer/model_config.h"

namespace attnfleet::trainer {
namespace {

constexpr int kBatch = 2, kHeads = 2, kLength = 110, kHeadSize = 8;

template <class T>
std::vector<T> ToVector(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous();
  return std::vector<T>(flat.const_data_ptr<T>(), flat.const_data_ptr<T>() + flat.numel());
}

struct Case {
  AttentionProblem problem;
  BiasSource source;
  at::Tensor q, k, v, dout;
};

Case MakeCase(bool biased, bool padded) {
  at::manual_seed(21);
  Case test;
  test.problem.type = at::kDouble;
  test.problem.batch = kBatch;
  test.problem.heads = kHeads;
  test.problem.sequence_length = kLength;
  test.problem.head_size = kHeadSize;
  test.problem.relative_bias = test.problem.spatial_bias = biased;
  test.problem.padded = padded;
  test.problem.bias_gradients = biased;
  const auto buckets = [](int64_t largest, int count, int distance) {
    return at::tensor(at::ArrayRef<int64_t>(BucketTable(largest, count, distance)), at::kLong);
  };
  BiasSource& source = test.source;
  source.relative_table = (at::randn({kHeads, kRelativeBuckets}, at::kDouble) * 8).requires_grad_();
  source.x_table = (at::randn({kHeads, kSpatialBuckets}, at::kDouble) * 8).requires_grad_();
  source.y_table = (at::randn({kHeads, kSpatialBuckets}, at::kDouble) * 8).requires_grad_();
  source.relative_buckets = buckets(kLength, kRelativeBuckets, kRelativeMaxDistance);
  source.spatial_buckets = buckets(1023, kSpatialBuckets, kSpatialMaxDistance);
  source.positions = at::arange(kLength, at::kLong);
  source.boxes = at::randint(0, 1001, {kBatch, kLength, 4}, at::kLong);
  source.attention_mask = at::ones({kBatch, kLength}, at::kLong);
  if (padded) {
    source.attention_mask[0].narrow(0, 3, 5).zero_();
    source.attention_mask[1].narrow(0, kLength - 30, 30).zero_();
  }
  for (at::Tensor* tensor : {&test.q, &test.k, &test.v}) {
    *tensor = at::randn({kBatch, kHeads, kLength, kHeadSize}, at::kDouble).requires_grad_();
  }
  test.dout = at::randn({kBatch, kHeads, kLength, kHeadSize}, at::kDouble);
  return test;
}

FusedReferenceOutput Reference(const Case& test, const FusedDropout& dropout) {
  FusedReferenceInput input;
  input.batch = kBatch;
  input.heads = kHeads;
  input.length = kLength;
  input.head_size = kHeadSize;
  input.q = ToVector<double>(test.q);
  input.k = ToVector<double>(test.k);
  input.v = ToVector<double>(test.v);
  input.dout = ToVector<double>(test.dout);
  if (test.problem.relative_bias) {
    input.relative_table = ToVector<double>(test.source.relative_table);
    input.x_table = ToVector<double>(test.source.x_table);
    input.y_table = ToVector<double>(test.source.y_table);
  }
  input.positions = ToVector<int64_t>(test.source.positions);
  input.x = ToVector<int64_t>(test.source.boxes.select(-1, 0));
  input.y = ToVector<int64_t>(test.source.boxes.select(-1, 3));
  input.mask = ToVector<int64_t>(test.source.attention_mask);
  input.dropout = dropout;
  return FusedReference(input);
}

void ExpectEqual(const std::vector<double>& actual, const at::Tensor& expected, const char* name) {
  ASSERT_EQ(static_cast<int64_t>(actual.size()), expected.numel()) << name;
  const at::Tensor tensor = at::from_blob(const_cast<double*>(actual.data()), expected.sizes(), at::kDouble);
  EXPECT_LT((tensor - expected).abs().max().item<double>(), 1e-10) << name;
}

void ExpectSameAs(const Case& test, const FusedReferenceOutput& reference, const at::Tensor& output) {
  output.backward(test.dout);
  ExpectEqual(reference.out, output.detach(), "out");
  ExpectEqual(reference.dq, test.q.grad(), "dq");
  ExpectEqual(reference.dk, test.k.grad(), "dk");
  ExpectEqual(reference.dv, test.v.grad(), "dv");
  if (!test.problem.bias_gradients) return;
  ExpectEqual(reference.drelative, test.source.relative_table.grad(), "gradient of the relative table");
  ExpectEqual(reference.dx, test.source.x_table.grad(), "gradient of the x table");
  ExpectEqual(reference.dy, test.source.y_table.grad(), "gradient of the y table");
}

TEST(FusedReference, AgreesWithEager) {
  const Backend& eager = *FindBackend("eager").value();
  for (const bool biased : {false, true}) {
    for (const bool padded : {false, true}) {
      SCOPED_TRACE(testing::Message() << "biased " << biased << " padded " << padded);
      const Case test = MakeCase(biased, padded);
      const StepTensors step = eager.prepare(test.problem, test.source);
      ExpectSameAs(test, Reference(test, MakeFusedDropout(0, 0, 0)), eager.forward({test.q, test.k, test.v, step, 0}));
    }
  }
}

// Eager's dropout draws from another generator: the same computation with the exported mask.
TEST(FusedReference, DropsWhatTheMaskSays) {
  const Case test = MakeCase(/*biased=*/true, /*padded=*/true);
  const FusedDropout dropout = MakeFusedDropout(7, 8, 0.1);
  at::Tensor keep = at::ones({kBatch, kHeads, kLength, kLength}, at::kDouble);
  auto flags = keep.accessor<double, 4>();
  for (uint32_t b = 0; b < kBatch; ++b) {
    for (uint32_t h = 0; h < kHeads; ++h) {
      for (uint32_t i = 0; i < kLength; ++i) {
        for (uint32_t j = 0; j < kLength; ++j) {
          if (DropoutBits(dropout, b * kHeads + h, i, j) >= dropout.threshold) flags[b][h][i][j] = 0;
        }
      }
    }
  }
  const at::Tensor scores =
      at::matmul(test.q, test.k.transpose(-1, -2)) + RelativeBias(test.source) + SpatialBias(test.source);
  const at::Tensor probabilities =
      at::softmax(scores / std::sqrt(static_cast<double>(kHeadSize)) + AdditiveMask(test.source), -1);
  const double kept = dropout.threshold / 65536.0;
  ExpectSameAs(test, Reference(test, dropout), at::matmul(probabilities * keep / kept, test.v));
}

}  // namespace
}  // namespace attnfleet::trainer
