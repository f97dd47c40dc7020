#include "worker/trainer/checkpoint.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <optional>

#include "small_model.h"
#include "worker/trainer/safetensors_writer.h"

namespace attnfleet::trainer {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

ModelConfig Small() {
  ModelConfig config = SmallModel();
  config.max_positions = 10;
  config.max_2d_positions = 16;
  config.image_size = 32;
  config.labels = 5;
  return config;
}

class Checkpoint : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "checkpoint-test-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    path_ = (folder_ / "model.safetensors").string();
  }
  void TearDown() override { fs::remove_all(folder_); }

  // A saved checkpoint, each tensor changed as `change` says; without a value it is left out.
  using Change = std::function<std::optional<std::string>(const std::string& name, at::Tensor& value)>;
  std::string Rewrite(const Change& change) const {
    const SafetensorsFile file = SafetensorsFile::Read(path_).value();
    std::vector<SafetensorsWriter::Tensor> tensors;
    std::vector<at::Tensor> values;
    for (const auto& [name, entry] : file.entries()) {
      at::Tensor value = ToTensor(entry);
      const std::optional<std::string> written = change(name, value);
      if (!written) continue;
      const ElementType type = value.scalar_type() == at::kBFloat16 ? ElementType::kBFloat16
                               : value.scalar_type() == at::kHalf   ? ElementType::kFloat16
                               : value.scalar_type() == at::kLong   ? ElementType::kInt64
                                                                    : ElementType::kFloat32;
      tensors.push_back({*written, type, value.sizes().vec()});
      values.push_back(value.contiguous());
    }
    const std::string path = (folder_ / "changed.safetensors").string();
    SafetensorsWriter writer = SafetensorsWriter::Create(path, tensors, {}).value();
    for (const at::Tensor& value : values) {
      EXPECT_TRUE(writer.Append({static_cast<const char*>(value.const_data_ptr()), value.nbytes()}).ok());
    }
    EXPECT_TRUE(writer.Finish().ok());
    return path;
  }

  fs::path folder_;
  std::string path_;
};

// The largest difference of any parameter.
double Difference(Model a, const Model& b) {
  std::map<std::string, at::Tensor> others;
  Model copy = b;
  VisitParameters(copy, [&](const ParameterSpec& spec, at::Tensor& tensor) { others[spec.name] = tensor.detach(); });
  double most = 0;
  VisitParameters(a, [&](const ParameterSpec& spec, at::Tensor& tensor) {
    most = std::max(most, (tensor.detach() - others.at(spec.name)).abs().max().item<double>());
  });
  return most;
}

Model Saved(const std::string& path, const ModelConfig& config) {
  Model model = MakeModel(config, at::kCPU, 1);
  EXPECT_TRUE(SaveCheckpoint(path, model).ok());
  return model;
}

std::string ErrorOf(const std::string& path, const ModelConfig& config = Small()) {
  Model model = MakeModel(config, at::kCPU, 2);
  const Model before = MakeModel(config, at::kCPU, 2);
  const absl::StatusOr<std::string> loaded = LoadCheckpoint(path, model);
  EXPECT_EQ(Difference(model, before) == 0, !loaded.ok());
  return std::string(loaded.status().message());
}

TEST_F(Checkpoint, WhatIsSavedIsLoadedAgain) {
  for (const bool image : {false, true}) {
    for (const int64_t labels : {5, 12}) {
      ModelConfig config = Small();
      config.image = image;
      config.labels = labels;
      const Model saved = Saved(path_, config);
      Model model = MakeModel(config, at::kCPU, 2);
      EXPECT_GT(Difference(model, saved), 0.01);
      EXPECT_EQ(LoadCheckpoint(path_, model).value(), "");
      EXPECT_EQ(Difference(model, saved), 0);
      EXPECT_TRUE(model.word_embeddings.requires_grad());
    }
  }
}

TEST_F(Checkpoint, SavesWhatTransformersAsksFor) {
  Saved(path_, Small());
  const SafetensorsFile file = SafetensorsFile::Read(path_).value();
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_TRUE(file.entries().contains("layoutlmv3.encoder.rel_pos_x_bias.weight"));
  EXPECT_TRUE(file.entries().contains("classifier.weight"));
}

TEST_F(Checkpoint, NamesMayLackThePrefix) {
  const Model saved = Saved(path_, Small());
  const std::string path = Rewrite([](const std::string& name, at::Tensor&) {
    const std::string prefix = "layoutlmv3.";
    return name.starts_with(prefix) ? name.substr(prefix.size()) : name;
  });
  Model model = MakeModel(Small(), at::kCPU, 2);
  EXPECT_EQ(LoadCheckpoint(path, model).value(), "");
  EXPECT_EQ(Difference(model, saved), 0);
}

TEST_F(Checkpoint, HalfPrecisionIsConverted) {
  const Model saved = Saved(path_, Small());
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
    const std::string path = Rewrite([type](const std::string& name, at::Tensor& value) {
      value = value.to(type);
      return name;
    });
    Model model = MakeModel(Small(), at::kCPU, 2);
    EXPECT_EQ(LoadCheckpoint(path, model).value(), "");
    EXPECT_EQ(model.word_embeddings.scalar_type(), at::kFloat);
    EXPECT_GT(Difference(model, saved), 0);
    EXPECT_LT(Difference(model, saved), 0.001);
    EXPECT_TRUE(model.word_embeddings.detach().equal(saved.word_embeddings.detach().to(type).to(at::kFloat)));
  }
}

TEST_F(Checkpoint, SavesBf16AsItIs) {
  Model model = MakeModel(Small(), at::kCPU, 1);
  VisitParameters(model, [](const ParameterSpec&, at::Tensor& tensor) { tensor = tensor.detach().to(at::kBFloat16); });
  ASSERT_TRUE(SaveCheckpoint(path_, model).ok());
  EXPECT_EQ(SafetensorsFile::Read(path_).value().entries().at("classifier.weight").type, ElementType::kBFloat16);
}

TEST_F(Checkpoint, PartsThatTheModelLacksAreLeftOut) {
  ModelConfig whole = Small();
  whole.image = true;
  const Model saved = Saved(path_, whole);
  ModelConfig text = Small();
  text.relative_bias = text.spatial_bias = false;
  Model model = MakeModel(text, at::kCPU, 2);
  EXPECT_EQ(LoadCheckpoint(path_, model).value(), "");
  EXPECT_TRUE(model.word_embeddings.detach().equal(saved.word_embeddings.detach()));
}

TEST_F(Checkpoint, ABaseModelLeavesTheHeadRandomAndSaysSo) {
  Saved(path_, Small());
  const std::string path = Rewrite([](const std::string& name, at::Tensor&) -> std::optional<std::string> {
    if (name.starts_with("classifier.")) return std::nullopt;
    return name;
  });
  Model model = MakeModel(Small(), at::kCPU, 2);
  EXPECT_THAT(LoadCheckpoint(path, model).value(), HasSubstr("has no classifier"));
  EXPECT_TRUE(model.classifier.weight.detach().equal(MakeModel(Small(), at::kCPU, 2).classifier.weight.detach()));
}

TEST_F(Checkpoint, OneErrorListsAllThatIsWrong) {
  Saved(path_, Small());
  const std::string path = Rewrite([](const std::string& name, at::Tensor& value) -> std::optional<std::string> {
    if (name == "layoutlmv3.encoder.rel_pos_y_bias.weight") return std::nullopt;
    if (name == "classifier.bias") value = value.slice(0, 0, 3);
    if (name == "layoutlmv3.embeddings.LayerNorm.bias") value = value.to(at::kLong);
    if (name.ends_with("query.bias")) return "layoutlmv3.qa_outputs";
    return name;
  });
  const std::string message = ErrorOf(path);
  EXPECT_THAT(message,
              AllOf(HasSubstr(path), HasSubstr("2 missing: "), HasSubstr("rel_pos_y_bias.weight"),
                    HasSubstr("1 surplus: layoutlmv3.qa_outputs"), HasSubstr("classifier.bias is [3], not [5]"),
                    HasSubstr("LayerNorm.bias is I64"), Not(HasSubstr("\n"))));
}

TEST_F(Checkpoint, AnotherNumberOfLabelsOrPositionsIsNamed) {
  Saved(path_, Small());
  ModelConfig other = Small();
  other.labels = 7;
  other.max_positions = 30;
  EXPECT_THAT(ErrorOf(path_, other), AllOf(HasSubstr("classifier.weight is [5, 24], not [7, 24]"),
                                           HasSubstr("position_embeddings.weight is [10, 24], not [30, 24]")));
  other.labels = 12;
  EXPECT_THAT(ErrorOf(path_, other), AllOf(HasSubstr("classifier.dense.weight"), HasSubstr("surplus: classifier.")));
}

TEST_F(Checkpoint, AModelWithAnImageNeedsItsWeights) {
  Saved(path_, Small());
  ModelConfig image = Small();
  image.image = true;
  EXPECT_THAT(ErrorOf(path_, image), AllOf(HasSubstr("8 missing: "), HasSubstr("layoutlmv3.patch_embed.proj.weight")));
}

TEST_F(Checkpoint, TruncatedFilesAreErrors) {
  Saved(path_, Small());
  fs::resize_file(path_, fs::file_size(path_) - 1);
  EXPECT_THAT(ErrorOf(path_), HasSubstr("truncated"));
  fs::resize_file(path_, 100);
  EXPECT_THAT(ErrorOf(path_), HasSubstr("no usable safetensors file"));
}

TEST_F(Checkpoint, SavePathsAreJudgedBeforehand) {
  EXPECT_TRUE(CheckSavePath(path_).ok());
  EXPECT_TRUE(CheckSavePath("model.safetensors").ok());
  EXPECT_THAT(std::string(CheckSavePath("/nonexistent/m").message()), HasSubstr("/nonexistent/"));
  EXPECT_THAT(std::string(CheckSavePath(folder_.string()).message()), HasSubstr("no regular file"));
}

}  // namespace
}  // namespace attnfleet::trainer
