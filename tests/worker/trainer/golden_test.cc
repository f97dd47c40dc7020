// The model against Hugging Face's LayoutLMv3ForTokenClassification: logits, loss and every gradient, from the files of
// tests/golden. And the proof that the comparison can fail: mutants of the attention bias.

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "worker/trainer/attention/backends.h"
#include "worker/trainer/model.h"
#include "worker/trainer/safetensors.h"

namespace attnfleet::trainer {
namespace {

// Of fp32 rounding alone; measured: 0 for eager, at most 3e-6 for sdpa.
constexpr double kTolerance = 1e-5;

class Golden {
 public:
  explicit Golden(const std::string& name)
      : file_(SafetensorsFile::Read(std::string(ATTNFLEET_GOLDEN) + "/" + name + ".safetensors").value()) {}

  ModelConfig Config() const {
    ModelConfig config;
    config.hidden_size = Number("hidden_size");
    config.layers = Number("num_hidden_layers");
    config.heads = Number("num_attention_heads");
    config.intermediate_size = Number("intermediate_size");
    config.vocabulary = Number("vocab_size");
    config.max_positions = Number("max_position_embeddings");
    config.coordinate_size = Number("coordinate_size");
    config.shape_size = Number("shape_size");
    config.labels = Number("num_labels");
    config.relative_bias = Number("has_relative_attention_bias") != 0;
    config.spatial_bias = Number("has_spatial_attention_bias") != 0;
    config.hidden_dropout = 0;
    config.attention_dropout = 0;
    return config;
  }

  bool Has(const std::string& name) const { return file_.entries().contains(name); }

  at::Tensor Tensor(const std::string& name) const {
    const SafetensorsFile::Entry& entry = file_.entries().at(name);
    at::Tensor tensor = at::empty(entry.shape, entry.type == ElementType::kInt64 ? at::kLong : at::kFloat);
    std::memcpy(tensor.mutable_data_ptr(), entry.bytes.data(), entry.bytes.size());
    return tensor;
  }

  Batch Input() const {
    return {Tensor("input.ids"), Tensor("input.boxes"), Tensor("input.labels"), Tensor("input.attention_mask"), true};
  }

  // The model with the file's weights. Every parameter must be in the file, and every weight of the file in the model.
  Model LoadModel() const {
    Model model = MakeModel(Config(), at::kCPU, 0);
    size_t loaded = 0;
    const at::NoGradGuard no_gradient;
    VisitParameters(model, [&](const ParameterSpec& spec, at::Tensor& tensor) {
      tensor.copy_(Tensor("weight." + spec.name));
      ++loaded;
    });
    size_t stored = 0;
    for (const auto& [name, entry] : file_.entries()) stored += name.starts_with("weight.") ? 1 : 0;
    EXPECT_EQ(loaded, stored);
    return model;
  }

 private:
  int64_t Number(const char* name) const { return std::stoll(file_.metadata().at(name)); }

  SafetensorsFile file_;
};

double Largest(const at::Tensor& tensor) { return tensor.abs().max().item<double>(); }

struct Difference {
  double logits = 0;
  double loss = 0;
  double gradients = 0;  // the largest, each relative to its own scale
  std::string worst;     // whose

  double Most() const { return std::max({logits, loss, gradients}); }
};

// What a gradient's error is measured by: its own largest element. A key's bias moves all scores of a row alike, so its
// gradient is zero but for rounding, and the weight's beside it stands in.
double Scale(const Golden& golden, const std::string& name) {
  const std::string key_bias = "key.bias";
  if (!name.ends_with(key_bias)) return Largest(golden.Tensor("gradient." + name));
  return Largest(golden.Tensor("gradient." + name.substr(0, name.size() - key_bias.size()) + "key.weight"));
}

Difference Compare(const Golden& golden, Model& model, const Backend& backend) {
  const ModelOutput output = Forward(model, backend, golden.Input(), at::kFloat, /*training=*/true);
  output.loss.backward();
  Difference difference;
  const at::Tensor logits = golden.Tensor("logits");
  difference.logits = Largest(output.logits.detach() - logits) / Largest(logits);
  const double loss = golden.Tensor("loss").item<double>();
  difference.loss = std::abs(output.loss.item<double>() - loss) / loss;

  VisitParameters(model, [&](const ParameterSpec& spec, at::Tensor& tensor) {
    const bool wanted = golden.Has("gradient." + spec.name);
    ASSERT_EQ(tensor.grad().defined(), wanted) << spec.name;
    if (!wanted) return;
    const at::Tensor gradient = golden.Tensor("gradient." + spec.name);
    const double error = Largest(tensor.grad() - gradient) / Scale(golden, spec.name);
    if (error < difference.gradients) return;
    difference.gradients = error;
    difference.worst = spec.name;
  });
  return difference;
}

class GoldenModel : public testing::TestWithParam<std::tuple<std::string, std::string>> {};

TEST_P(GoldenModel, EqualsHuggingFace) {
  const Golden golden(std::get<0>(GetParam()));
  Model model = golden.LoadModel();
  const Difference difference = Compare(golden, model, *FindBackend(std::get<1>(GetParam())).value());
  std::printf("logits %.1e, loss %.1e, gradients %.1e (%s)\n", difference.logits, difference.loss, difference.gradients,
              difference.worst.c_str());
  EXPECT_LT(difference.logits, kTolerance);
  EXPECT_LT(difference.loss, kTolerance);
  EXPECT_LT(difference.gradients, kTolerance) << difference.worst;
}

INSTANTIATE_TEST_SUITE_P(All, GoldenModel,
                         testing::Combine(testing::Values("both_biases_two_layer_head", "both_biases_one_layer_head",
                                                          "relative_bias", "no_bias"),
                                          testing::Values("eager", "sdpa")),
                         [](const auto& test) { return std::get<0>(test.param) + "_" + std::get<1>(test.param); });

// What a wrong implementation of the bias would compute, by wrong tables.
struct Mutant {
  const char* name;
  void (*change)(Model& model);
};

void PrintTo(const Mutant& mutant, std::ostream* stream) { *stream << mutant.name; }

class GoldenMutant : public testing::TestWithParam<Mutant> {};

TEST_P(GoldenMutant, IsFound) {
  const Golden golden("both_biases_two_layer_head");
  for (const Backend* backend : Backends()) {
    if (!backend->cpu) continue;
    Model model = golden.LoadModel();
    GetParam().change(model);
    const Difference difference = Compare(golden, model, *backend);
    EXPECT_GT(difference.logits, 100 * kTolerance) << backend->name;
    EXPECT_GT(difference.gradients, 100 * kTolerance) << backend->name;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, GoldenMutant,
    testing::Values(
        Mutant{"IgnoresRelative", [](Model& model) { model.rel_pos_bias.zero_(); }},
        Mutant{"IgnoresX", [](Model& model) { model.rel_pos_x_bias.zero_(); }},
        Mutant{"IgnoresY", [](Model& model) { model.rel_pos_y_bias.zero_(); }},
        Mutant{"SwapsXAndY", [](Model& model) { std::swap(model.rel_pos_x_bias, model.rel_pos_y_bias); }},
        // The reversed table has the bucket of i - j where that of j - i belongs.
        Mutant{"TransposesRelative", [](Model& model) { model.relative_buckets = model.relative_buckets.flip(0); }},
        Mutant{"TransposesSpatial", [](Model& model) { model.spatial_buckets = model.spatial_buckets.flip(0); }},
        Mutant{"SwapsHeads", [](Model& model) { model.rel_pos_x_bias = model.rel_pos_x_bias.flip(0); }},
        Mutant{"IsOneBucketOff", [](Model& model) { model.spatial_buckets = model.spatial_buckets.roll(1); }}),
    [](const auto& test) { return test.param.name; });

// A transposed x alone: the tables of the two axes share their buckets, so the boxes are mirrored instead.
TEST(GoldenMutantBoxes, MirroredXIsFound) {
  const Golden golden("both_biases_two_layer_head");
  for (const Backend* backend : Backends()) {
    if (!backend->cpu) continue;
    Model model = golden.LoadModel();
    const at::Tensor table = model.rel_pos_x_bias.clone();
    // Exchanges the buckets of negative and positive differences, which transposes the x bias but for its diagonal.
    model.rel_pos_x_bias.slice(1, 1, 32).copy_(table.slice(1, 33, 64));
    model.rel_pos_x_bias.slice(1, 33, 64).copy_(table.slice(1, 1, 32));
    EXPECT_GT(Compare(golden, model, *backend).logits, 100 * kTolerance) << backend->name;
  }
}

// layoutlmv3-base has 125.9 M; the image's part of it (patches, its positions, two norms) is 745,728.
TEST(Model, ParameterCountOfBaseIsThatOfItsTextPart) {
  ModelConfig config;
  config.relative_bias = false;
  config.spatial_bias = false;
  EXPECT_EQ(CountParameters(config), 125'923'338 - 745'728);
}

TEST(Model, PaddingRowsStartAtZeroAndGetNoGradient) {
  const Golden golden("no_bias");
  Model model = MakeModel(golden.Config(), at::kCPU, 3);
  EXPECT_EQ(Largest(model.word_embeddings[kPaddingId].detach()), 0);
  Forward(model, *Backends()[0], golden.Input(), at::kFloat, true).loss.backward();
  EXPECT_EQ(Largest(model.word_embeddings.grad()[kPaddingId]), 0);
  EXPECT_EQ(Largest(model.position_embeddings.grad()[kPaddingId]), 0);
  EXPECT_GT(Largest(model.position_embeddings.grad()[kPaddingId + 1]), 0);
}

}  // namespace
}  // namespace attnfleet::trainer
