// The model against Hugging Face's LayoutLMv3ForTokenClassification: logits, loss and every gradient, from the files of
// tests/golden. And the proof that the comparison can fail: mutants of what attention is given.

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "worker/trainer/attention/backends.h"
#include "worker/trainer/model.h"
#include "worker/trainer/verify.h"

namespace attnfleet::trainer {
namespace {

// What a mutant must exceed: far beyond rounding.
constexpr double kWrong = 1000 * kVerifyBound;

ModelCase Golden(const std::string& name) {
  return ModelCase::Read(std::string(ATTNFLEET_GOLDEN) + "/" + name + ".safetensors").value();
}

std::vector<std::string> GoldenNames() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(ATTNFLEET_GOLDEN)) {
    if (entry.path().extension() == ".safetensors") names.push_back(entry.path().stem());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Those that can run the case here.
std::vector<const Backend*> BackendsFor(const ModelCase& golden) {
  const Batch& input = golden.input();
  const AttentionProblem problem = MakeProblem(golden.config(), input.ids.size(0), input.ids.size(1), /*cuda=*/false,
                                               at::kFloat, input.padded, /*training=*/true);
  std::vector<const Backend*> backends;
  for (const Backend* backend : Backends()) {
    if (backend->cpu && !backend->refuse(problem)) backends.push_back(backend);
  }
  return backends;
}

double Largest(const at::Tensor& tensor) { return tensor.abs().max().item<double>(); }

class GoldenModel : public testing::TestWithParam<std::string> {};

void ExpectHuggingFacesFigures(const ModelCase& golden, StepKind step) {
  const std::vector<const Backend*> backends = BackendsFor(golden);
  ASSERT_GE(backends.size(), 2u);
  for (const Backend* backend : backends) {
    Model model = golden.MakeModel(at::kCPU);
    const CaseError error = golden.Compare(model, *backend, step).value();
    std::printf("%-8s logits %.1e, loss %.1e, gradients %.1e (%s)\n", backend->name, error.logits, error.loss,
                error.gradients, error.worst_parameter.c_str());
    EXPECT_LE(error.logits, kVerifyBound) << backend->name;
    EXPECT_LE(error.loss, kVerifyBound) << backend->name;
    EXPECT_LE(error.gradients, kVerifyBound) << backend->name << ": " << error.worst_parameter;
    EXPECT_GT(error.compared_gradients, 20);
  }
}

TEST_P(GoldenModel, EqualsHuggingFace) { ExpectHuggingFacesFigures(Golden(GetParam()), StepKind::kReference); }

TEST_P(GoldenModel, OfTheFusedStepEqualsHuggingFace) {
  ExpectHuggingFacesFigures(Golden(GetParam()), StepKind::kFused);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenModel, testing::ValuesIn(GoldenNames()),
                         [](const auto& test) { return test.param; });

TEST(GoldenFiles, AreAllThere) { EXPECT_EQ(GoldenNames().size(), 13u); }

// What a wrong implementation would compute, by wrong tables, boxes or positions.
struct Mutant {
  const char* name;
  const char* golden;
  void (*change)(Model& model);
};

void PrintTo(const Mutant& mutant, std::ostream* stream) { *stream << mutant.name; }

class GoldenMutant : public testing::TestWithParam<Mutant> {};

TEST_P(GoldenMutant, IsFound) {
  const ModelCase golden = Golden(GetParam().golden);
  for (const StepKind step : {StepKind::kReference, StepKind::kFused}) {
    for (const Backend* backend : BackendsFor(golden)) {
      Model model = golden.MakeModel(at::kCPU);
      {
        const at::NoGradGuard no_gradient;
        GetParam().change(model);
      }
      const CaseError error = golden.Compare(model, *backend, step).value();
      EXPECT_GT(error.logits, kWrong) << backend->name;
      EXPECT_GT(error.gradients, kWrong) << backend->name;
    }
  }
}

constexpr char kText[] = "both_biases_two_layer_head";
constexpr char kImage[] = "image";
constexpr char kTrained[] = "trained_tables";

at::Tensor Columns(const at::Tensor& boxes, std::initializer_list<int64_t> order) {
  return boxes.index_select(1, at::tensor(at::ArrayRef<int64_t>(order), at::kLong));
}

// Exchanges the buckets of negative and positive differences, which transposes the bias but for its diagonal.
void Transpose(at::Tensor& table) {
  const at::Tensor copy = table.clone();
  const int64_t half = table.size(1) / 2;
  table.slice(1, 1, half).copy_(copy.slice(1, half + 1));
  table.slice(1, half + 1).copy_(copy.slice(1, 1, half));
}

INSTANTIATE_TEST_SUITE_P(
    All, GoldenMutant,
    testing::Values(
        Mutant{"IgnoresRelative", kText, [](Model& model) { model.rel_pos_bias.zero_(); }},
        Mutant{"IgnoresX", kText, [](Model& model) { model.rel_pos_x_bias.zero_(); }},
        Mutant{"IgnoresY", kText, [](Model& model) { model.rel_pos_y_bias.zero_(); }},
        Mutant{"SwapsXAndY", kText, [](Model& model) { std::swap(model.rel_pos_x_bias, model.rel_pos_y_bias); }},
        // The reversed table has the bucket of i - j where that of j - i belongs.
        Mutant{"TransposesRelative", kText,
               [](Model& model) { model.relative_buckets = model.relative_buckets.flip(0); }},
        Mutant{"TransposesSpatial", kText, [](Model& model) { model.spatial_buckets = model.spatial_buckets.flip(0); }},
        Mutant{"TransposesX", kText, [](Model& model) { Transpose(model.rel_pos_x_bias); }},
        Mutant{"TransposesY", kText, [](Model& model) { Transpose(model.rel_pos_y_bias); }},
        Mutant{"SwapsHeads", kText, [](Model& model) { model.rel_pos_x_bias = model.rel_pos_x_bias.flip(0); }},
        Mutant{"IsOneBucketOff", kText, [](Model& model) { model.spatial_buckets = model.spatial_buckets.roll(1); }},
        Mutant{"SwapsTrainedXAndY", kTrained,
               [](Model& model) { std::swap(model.rel_pos_x_bias, model.rel_pos_y_bias); }},
        Mutant{"TransposesTrainedRelative", kTrained,
               [](Model& model) { model.relative_buckets = model.relative_buckets.flip(0); }},
        Mutant{"IgnoresVisualBoxes", kImage, [](Model& model) { model.visual_boxes.zero_(); }},
        Mutant{"SwapsVisualXAndY", kImage,
               [](Model& model) {
                 model.visual_boxes = Columns(model.visual_boxes, {1, 0, 3, 2});
               }},
        Mutant{"TakesTheUpperVisualEdge", kImage,
               [](Model& model) {
                 model.visual_boxes = Columns(model.visual_boxes, {0, 1, 2, 1});
               }},
        Mutant{"MirrorsVisualBoxes", kImage, [](Model& model) { model.visual_boxes = model.visual_boxes.flip(0); }},
        Mutant{"ForgetsTheBoxOfTheWholeImage", kImage, [](Model& model) { model.visual_boxes[0].zero_(); }},
        Mutant{"IgnoresVisualPositions", kImage, [](Model& model) { model.visual_positions.zero_(); }},
        Mutant{"ReversesVisualPositions", kImage,
               [](Model& model) { model.visual_positions = model.visual_positions.flip(0); }},
        // The table ends before 29 + 196, where the bucket is the last one anyway.
        Mutant{"CountsVisualPositionsOn", kImage,
               [](Model& model) { model.visual_positions = (model.visual_positions + 29).clamp_max(196); }},
        Mutant{"ForgetsTheImagesPositions", kImage, [](Model& model) { model.visual.positions.zero_(); }},
        Mutant{"TransposesPatches", kImage,
               [](Model& model) {
                 model.visual.patches.weight.copy_(model.visual.patches.weight.transpose(2, 3).clone());
               }},
        Mutant{"ReversesChannels", kImage,
               [](Model& model) { model.visual.patches.weight.copy_(model.visual.patches.weight.flip(1)); }}),
    [](const auto& test) { return test.param.name; });

// layoutlmv3-base has 125.9 M; the image's part of it (patches, its positions, two norms) is 745,728.
TEST(Model, ParameterCountOfBaseIsThatOfItsTextPart) {
  ModelConfig config;
  config.relative_bias = false;
  config.spatial_bias = false;
  EXPECT_EQ(CountParameters(config), 125'923'338 - 745'728);
}

TEST(Model, ParameterCountWithAnImageIsHuggingFaces) {
  ModelConfig config;
  config.relative_bias = false;
  config.spatial_bias = false;
  config.image = true;
  EXPECT_EQ(CountParameters(config), 125'923'338);
  config.relative_bias = config.spatial_bias = true;
  EXPECT_EQ(CountParameters(config), 125'923'338 + 12 * (32 + 64 + 64));
}

TEST(Model, ImageStartsAsHuggingFaceStartsIt) {
  Model model = MakeModel(Golden("image").config(), at::kCPU, 3);
  EXPECT_EQ(Largest(model.visual.cls_token.detach()), 0);
  EXPECT_EQ(Largest(model.visual.positions.detach()), 0);
  EXPECT_NEAR(model.visual.patches.weight.detach().std().item<double>(), kInitialDeviation, 0.001);
  EXPECT_TRUE(model.visual.norm.weight.detach().eq(1).all().item<bool>());
}

TEST(Model, BiasTablesTrainOnlyWhereAsked) {
  EXPECT_FALSE(Golden(kText).MakeModel(at::kCPU).rel_pos_bias.requires_grad());
  EXPECT_TRUE(Golden(kTrained).MakeModel(at::kCPU).rel_pos_y_bias.requires_grad());
}

TEST(Model, PaddingRowsStartAtZeroAndGetNoGradient) {
  const ModelCase golden = Golden("no_bias");
  Model model = MakeModel(golden.config(), at::kCPU, 3);
  EXPECT_EQ(Largest(model.word_embeddings[kPaddingId].detach()), 0);
  Forward(model, *Backends()[0], golden.input(), at::kFloat, true).loss.backward();
  EXPECT_EQ(Largest(model.word_embeddings.grad()[kPaddingId]), 0);
  EXPECT_EQ(Largest(model.position_embeddings.grad()[kPaddingId]), 0);
  EXPECT_GT(Largest(model.position_embeddings.grad()[kPaddingId + 1]), 0);
}

}  // namespace
}  // namespace attnfleet::trainer
