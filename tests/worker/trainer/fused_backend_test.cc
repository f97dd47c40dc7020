// The backend `fused` as autograd sees it, on the CPU: its kernels' part is done by their reference. What reaches the
// tables that train, and how it adds up over layers.

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <c10/util/BFloat16.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#include "fused_reference.h"
#include "worker/trainer/attention/backends.h"
#include "worker/trainer/attention/fused.h"
#include "worker/trainer/buckets.h"
#include "worker/trainer/check.h"
#include "worker/trainer/model_config.h"

namespace attnfleet::trainer {
namespace {

constexpr int kBatch = 2, kHeads = 2, kLength = 37;

class ReferenceKernels : public FusedAttention {
 public:
  void Prepare(const FusedShape& shape, const FusedSource& source, const FusedStep& /*step*/) override {
    input_ = {};
    input_.batch = shape.batch;
    input_.heads = shape.heads;
    input_.length = shape.length;
    input_.head_size = kFusedHeadSize;
    const auto table = [&](const float* values, int columns) {
      return values == nullptr ? std::vector<double>() : std::vector<double>(values, values + shape.heads * columns);
    };
    input_.relative_table = table(source.relative_table, kRelativeBuckets);
    input_.x_table = table(source.x_table, kSpatialBuckets);
    input_.y_table = table(source.y_table, kSpatialBuckets);
    input_.positions.assign(source.positions, source.positions + shape.length);
    for (int token = 0; token < shape.batch * shape.length; ++token) {
      input_.x.push_back(source.boxes[4 * token]);
      input_.y.push_back(source.boxes[4 * token + 3]);
      input_.mask.push_back(source.mask[token]);
    }
  }

  void Forward(const FusedForwardArguments& arguments) override {
    FusedReferenceInput input = InputOf(arguments);
    input.dout.resize(input.q.size());
    Write(FusedReference(input).out, arguments.out);
  }

  void Backward(const FusedBackwardArguments& arguments) override {
    FusedReferenceInput input = InputOf(arguments.forward);
    input.dout = Read(arguments.dout);
    const FusedReferenceOutput output = FusedReference(input);
    Write(output.dq, arguments.dq);
    Write(output.dk, arguments.dk);
    Write(output.dv, arguments.dv);
    const FusedTableGradients& tables = arguments.tables;
    trains_tables_ = tables.partial != nullptr;
    if (!trains_tables_) return;
    const int64_t scratch = int64_t{kHeads} * FusedTableGroups(arguments.forward.shape) * kFusedTables;
    std::fill_n(tables.partial, scratch, 1.0F);
    Write(output.drelative, tables.relative);
    Write(output.dx, tables.x);
    Write(output.dy, tables.y);
    // As the kernels do, from the buckets of a distance that is there to the outermost.
    EXPECT_EQ(tables.relative_buckets[tables.relative_largest], 0);
    EXPECT_EQ(tables.relative_buckets[0], RelativePositionBucket(-tables.relative_largest, 32, 128));
    EXPECT_EQ(tables.spatial_buckets[2 * tables.spatial_largest],
              RelativePositionBucket(tables.spatial_largest, 64, 256));
  }

  void KeepMask(const FusedShape&, const FusedDropout&, uint8_t*) override { throw std::logic_error("not here"); }
  FusedDropout Draw(double p) override { return MakeFusedDropout(1, 2, p); }

  bool trains_tables() const { return trains_tables_; }  // in the last backward pass

 private:
  FusedReferenceInput InputOf(const FusedForwardArguments& arguments) const {
    FusedReferenceInput input = input_;
    input.q = Read(arguments.q);
    input.k = Read(arguments.k);
    input.v = Read(arguments.v);
    input.dropout = arguments.dropout;
    return input;
  }

  // Calls visit(element) for all of (B, H, S, 64), in that order.
  void Visit(const FusedMatrix& matrix, const std::function<void(c10::BFloat16&)>& visit) const {
    for (int b = 0; b < input_.batch; ++b) {
      for (int h = 0; h < input_.heads; ++h) {
        for (int row = 0; row < input_.length; ++row) {
          auto* const first = static_cast<c10::BFloat16*>(matrix.data) + b * matrix.batch_stride +
                              h * matrix.head_stride + row * matrix.row_stride;
          std::for_each(first, first + kFusedHeadSize, visit);
        }
      }
    }
  }
  std::vector<double> Read(const FusedMatrix& matrix) const {
    std::vector<double> values;
    Visit(matrix, [&](const c10::BFloat16& element) { values.push_back(static_cast<float>(element)); });
    return values;
  }
  void Write(const std::vector<double>& values, const FusedMatrix& matrix) const {
    auto next = values.begin();
    Visit(matrix, [&](c10::BFloat16& element) { element = static_cast<float>(*next++); });
  }
  static void Write(const std::vector<double>& values, float* to) {
    EXPECT_EQ(values.empty(), to == nullptr);
    std::transform(values.begin(), values.end(), to, [](double value) { return static_cast<float>(value); });
  }

  FusedReferenceInput input_;
  bool trains_tables_ = false;
};

AttentionProblem MakeProblem(bool relative, bool spatial) {
  AttentionProblem problem;
  problem.type = at::kBFloat16;
  problem.batch = kBatch;
  problem.heads = kHeads;
  problem.sequence_length = kLength;
  problem.head_size = kFusedHeadSize;
  problem.relative_bias = relative;
  problem.spatial_bias = spatial;
  problem.padded = true;
  problem.bias_gradients = true;
  return problem;
}

// Without a table that is off.
BiasSource MakeSource(const AttentionProblem& problem) {
  at::manual_seed(31);
  const auto buckets = [](int64_t largest, int count, int distance) {
    return at::tensor(at::ArrayRef<int64_t>(BucketTable(largest, count, distance)), at::kLong);
  };
  BiasSource source;
  if (problem.relative_bias) source.relative_table = at::randn({kHeads, kRelativeBuckets}) * 4;
  if (problem.spatial_bias) {
    source.x_table = at::randn({kHeads, kSpatialBuckets}) * 4;
    source.y_table = at::randn({kHeads, kSpatialBuckets}) * 4;
  }
  source.relative_buckets = buckets(kLength, kRelativeBuckets, kRelativeMaxDistance);
  source.spatial_buckets = buckets(1023, kSpatialBuckets, kSpatialMaxDistance);
  source.positions = at::arange(kLength, at::kLong);
  source.boxes = at::randint(0, 1001, {kBatch, kLength, 4}, at::kLong);
  source.attention_mask = at::ones({kBatch, kLength}, at::kLong);
  source.attention_mask[1].narrow(0, kLength - 9, 9).zero_();
  return source;
}

// Those of the tables that there are, from two layers that share them. `layer` is given q, k and v of each.
std::vector<at::Tensor> TableGradients(const BiasSource& source, at::ScalarType type,
                                       const std::function<at::Tensor(const std::vector<at::Tensor>&)>& layer) {
  at::manual_seed(32);
  at::Tensor sum;
  for (int i = 0; i < 2; ++i) {
    std::vector<at::Tensor> qkv;
    const auto draw = [&] {
      return at::randn({kBatch, kLength, kHeads, kFusedHeadSize}).to(at::kBFloat16).transpose(1, 2).to(type);
    };
    for (int part = 0; part < 3; ++part) qkv.push_back(draw());
    const at::Tensor loss = (layer(qkv) * draw()).sum();
    sum = sum.defined() ? sum + loss : loss;
  }
  sum.backward();
  std::vector<at::Tensor> gradients;
  for (const at::Tensor* table : {&source.relative_table, &source.x_table, &source.y_table}) {
    if (table->defined()) gradients.push_back(table->grad());
  }
  return gradients;
}

// With tables of this type that train.
BiasSource Trained(const BiasSource& source, at::ScalarType type) {
  BiasSource trained = source;
  for (at::Tensor* table : {&trained.relative_table, &trained.x_table, &trained.y_table}) {
    if (table->defined()) *table = table->detach().to(type, /*non_blocking=*/false, /*copy=*/true).requires_grad_();
  }
  return trained;
}

std::vector<at::Tensor> ExactGradients(AttentionProblem problem, const BiasSource& given) {
  problem.type = at::kDouble;
  const BiasSource source = Trained(given, at::kDouble);
  const Backend& eager = *FindBackend("eager").value();
  const StepTensors step = eager.prepare(problem, source);
  return TableGradients(source, at::kDouble, [&](const std::vector<at::Tensor>& qkv) {
    return eager.forward({qkv[0], qkv[1], qkv[2], step, 0});
  });
}

TEST(FusedBackend, TablesGetTheGradientsOfAllLayers) {
  for (const auto& [relative, spatial] : {std::pair{true, true}, std::pair{true, false}, std::pair{false, true}}) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      SCOPED_TRACE(testing::Message() << "relative " << relative << " spatial " << spatial << " " << type);
      const AttentionProblem problem = MakeProblem(relative, spatial);
      BiasSource source = MakeSource(problem);
      if (type == at::kBFloat16) source = Trained(source, type);  // rounded for both
      const std::vector<at::Tensor> exact = ExactGradients(problem, source);
      source = Trained(source, type);
      const auto state = PrepareFused(std::make_shared<ReferenceKernels>(), problem, source);
      const std::vector<at::Tensor> gradients =
          TableGradients(source, at::kBFloat16, [&](const std::vector<at::Tensor>& qkv) {
            return ForwardFused(qkv[0], qkv[1], qkv[2], state, MakeFusedDropout(0, 0, 0));
          });
      ASSERT_EQ(gradients.size(), exact.size());
      for (size_t i = 0; i < exact.size(); ++i) {
        ASSERT_TRUE(gradients[i].defined()) << i;
        EXPECT_EQ(gradients[i].scalar_type(), type) << i;
        EXPECT_LT(RelativeError(gradients[i], exact[i]), type == at::kFloat ? 1e-6 : 0.01) << i;
      }
    }
  }
}

TEST(FusedBackend, TablesThatDoNotTrainCostNothing) {
  AttentionProblem problem = MakeProblem(true, true);
  problem.bias_gradients = false;
  const BiasSource source = MakeSource(problem);
  const auto kernels = std::make_shared<ReferenceKernels>();
  const auto state = PrepareFused(kernels, problem, source);
  const at::Tensor qkv = at::randn({kBatch, kLength, 3, kHeads, kFusedHeadSize}).to(at::kBFloat16).requires_grad_();
  const auto part = [&](int64_t i) { return qkv.select(2, i).transpose(1, 2); };
  ForwardFused(part(0), part(1), part(2), state, MakeFusedDropout(0, 0, 0)).sum().backward();
  EXPECT_TRUE(qkv.grad().defined());
  EXPECT_FALSE(kernels->trains_tables());
  EXPECT_FALSE(state->relative_buckets.defined());
}

}  // namespace
}  // namespace attnfleet::trainer
