#include "learning.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <numeric>
#include <optional>
#include <utility>

#include "worker/trainer/autocast.h"
#include "worker/trainer/optimizer.h"
#include "worker/trainer/step/adam.h"
#include "worker/trainer/step/fused_step.h"

namespace attnfleet::trainer {
namespace {

constexpr int kSteps = 200;

double Mean(const double* begin, const double* end) {
  return std::accumulate(begin, end, 0.0) / static_cast<double>(end - begin);
}
double Mean(const std::vector<double>& values) { return Mean(values.data(), values.data() + values.size()); }

// The mean loss of the first and of the last ten steps.
std::pair<double, double> Learn(const LearningTask& task, StepKind kind, uint64_t seed) {
  Model model = MakeModel(task.model, task.device, seed);
  at::manual_seed(seed);
  const at::ScalarType low = task.mixed ? at::kBFloat16 : at::kFloat;
  std::optional<FusedTrainingStep> step;
  std::optional<FusedAdam> fused;
  std::optional<AdamOptimizer> adam;
  if (kind != StepKind::kReference) {
    step.emplace(model, low, kind == StepKind::kFusedBf16Stream ? at::kBFloat16 : at::kFloat, seed);
    fused.emplace(Optimizer::kAdamW, task.learning_rate, *step);
  } else {
    std::vector<at::Tensor> trained;
    VisitParameters(model, [&](const ParameterSpec&, at::Tensor& p) {
      if (p.requires_grad()) trained.push_back(p);
    });
    adam.emplace(Optimizer::kAdamW, task.learning_rate, std::move(trained));
  }
  std::vector<double> losses;
  for (uint64_t i = 0; i < kSteps; ++i) {
    Batch batch = LearnableBatch(task.model, 1000 * seed + i, task.sequences, task.length);
    for (at::Tensor* tensor : batch.Tensors()) *tensor = tensor->to(task.device);
    at::Tensor loss;
    {
      const Autocast autocast(task.mixed, task.device.type());
      loss = step.has_value() ? step->Forward(model, *task.fused_attention, batch, true).loss
                              : Forward(model, *task.reference_attention, batch, low, true).loss;
    }
    loss.backward();
    losses.push_back(loss.item<double>());
    if (fused.has_value()) {
      fused->Step();
    } else {
      adam->Step();
      adam->DropGradients();
    }
  }
  return {Mean(losses.data(), losses.data() + 10), Mean(losses.data() + kSteps - 10, losses.data() + kSteps)};
}

}  // namespace

Batch LearnableBatch(const ModelConfig& config, uint64_t seed, int64_t sequences, int64_t length) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  Batch batch;
  batch.ids = at::randint(2, config.vocabulary, {sequences, length}, generator, at::kLong);
  const at::Tensor low = at::randint(0, 500, {sequences, length, 2}, generator, at::kLong);
  const at::Tensor size = at::randint(0, 500, {sequences, length, 2}, generator, at::kLong);
  batch.boxes = at::cat({low, low + size}, 2);
  batch.labels = (batch.ids + batch.boxes.select(2, 0).div(250, "floor")).remainder(config.labels);
  batch.attention_mask = at::ones({sequences, length}, at::kLong);
  batch.padded = true;
  for (at::Tensor* tensor : {&batch.ids, &batch.attention_mask, &batch.labels}) {
    const int64_t value = tensor == &batch.ids ? kPaddingId : tensor == &batch.labels ? kIgnoredLabel : 0;
    tensor->select(0, 1).narrow(0, length - 3, 3).fill_(value);
  }
  return batch;
}

void ExpectLearnsWhatTheReferenceLearns(const LearningTask& task, const std::vector<uint64_t>& seeds,
                                        const std::vector<StepKind>& kinds) {
  std::map<StepKind, std::vector<double>> last;
  std::vector<StepKind> all = kinds;
  all.push_back(StepKind::kReference);
  double first = 0;
  for (const uint64_t seed : seeds) {
    for (const StepKind kind : all) {
      const auto [begin, end] = Learn(task, kind, seed);
      std::printf("seed %d, %s: loss %.3f, then %.4f\n", static_cast<int>(seed), StepName(kind), begin, end);
      EXPECT_LT(end, begin / 2) << StepName(kind) << ", seed " << seed;
      last[kind].push_back(end);
      first = std::max(first, begin);
    }
  }
  const std::vector<double>& reference = last[StepKind::kReference];
  const double spread =
      *std::max_element(reference.begin(), reference.end()) - *std::min_element(reference.begin(), reference.end());
  for (const StepKind kind : kinds) {
    EXPECT_NEAR(Mean(last[kind]), Mean(reference), spread + 0.02 * first) << StepName(kind);
  }
}

}  // namespace attnfleet::trainer
