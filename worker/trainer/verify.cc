#include "worker/trainer/verify.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/name_list.h"
#include "worker/trainer/step/fused_step.h"

namespace attnfleet::trainer {
namespace {

constexpr char kWeight[] = "weight.";
constexpr char kGradient[] = "gradient.";
constexpr char kGradientRows[] = "gradient_rows.";
constexpr int64_t kMostLayers = 1000;
constexpr int64_t kMostOfAnything = 1'000'000;

absl::Status Unusable(const std::string& name, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(name, " is no usable case: ", what));
}

// The metadata's numbers.
class Reader {
 public:
  explicit Reader(const std::map<std::string, std::string>& metadata) : metadata_(metadata) {}

  int64_t Number(const char* name, int64_t least, int64_t most) {
    const auto text = metadata_.find(name);
    int64_t value = least;
    if (text == metadata_.end()) {
      problems_.push_back(absl::StrCat(name, " is missing"));
    } else if (!absl::SimpleAtoi(text->second, &value) || value < least || value > most) {
      problems_.push_back(absl::StrCat(name, " is \"", text->second, "\", not a number from ", least, " to ", most));
      value = least;
    }
    return value;
  }
  int64_t Size(const char* name) { return Number(name, 1, kMostOfAnything); }
  bool Flag(const char* name) { return Number(name, 0, 1) != 0; }

  const std::vector<std::string>& problems() const { return problems_; }

 private:
  const std::map<std::string, std::string>& metadata_;
  std::vector<std::string> problems_;
};

absl::StatusOr<ModelConfig> ReadConfig(const std::string& name, const std::map<std::string, std::string>& metadata) {
  Reader read(metadata);
  ModelConfig config;
  config.hidden_size = read.Size("hidden_size");
  config.layers = read.Number("num_hidden_layers", 1, kMostLayers);
  config.heads = read.Size("num_attention_heads");
  config.intermediate_size = read.Size("intermediate_size");
  config.vocabulary = read.Size("vocab_size");
  config.max_positions = read.Size("max_position_embeddings");
  config.type_vocabulary = read.Size("type_vocab_size");
  config.max_2d_positions = read.Size("max_2d_position_embeddings");
  config.coordinate_size = read.Size("coordinate_size");
  config.shape_size = read.Size("shape_size");
  config.labels = read.Size("num_labels");
  config.relative_bias = read.Flag("has_relative_attention_bias");
  config.spatial_bias = read.Flag("has_spatial_attention_bias");
  config.train_bias_tables = read.Flag("train_bias_tables");
  config.image = read.Flag("visual_embed");
  config.image_size = read.Size("input_size");
  config.patch_size = read.Size("patch_size");
  config.hidden_dropout = config.attention_dropout = 0;
  if (!read.problems().empty()) return Unusable(name, absl::StrCat("in its metadata, ", NameList(read.problems())));
  if (config.hidden_size % config.heads != 0 ||
      4 * config.coordinate_size + 2 * config.shape_size != config.hidden_size) {
    return Unusable(name,
                    "hidden_size must be a multiple of num_attention_heads, and 4 coordinate_size + 2 shape_size");
  }
  if (config.image && config.image_size % config.patch_size != 0) {
    return Unusable(name, "input_size must be a multiple of patch_size");
  }
  return config;
}

// What the file must hold.
NamedShapes ExpectedTensors(const ModelConfig& config, const NamedEntries& entries, int64_t batch, int64_t length) {
  NamedShapes expected = {{"input.ids", {{batch, length}, true}},
                          {"input.boxes", {{batch, length, 4}, true}},
                          {"input.attention_mask", {{batch, length}, true}},
                          {"input.labels", {{batch, length}, true}},
                          {"logits", {{batch, length, config.labels}}},
                          {"loss", {{}}}};
  if (config.image) expected["input.image"] = {{batch, kImageChannels, config.image_size, config.image_size}};
  for (const auto& [name, shape] : ParameterShapes(config)) expected[kWeight + name] = shape;
  ModelConfig trained = config;
  if (!config.train_bias_tables) trained.relative_bias = trained.spatial_bias = false;
  for (auto [name, shape] : ParameterShapes(trained)) {
    const auto rows = entries.find(kGradientRows + name);
    if (rows != entries.end() && rows->second.shape.size() == 1) {
      shape.sizes.front() = rows->second.shape.front();
      expected[kGradientRows + name] = {rows->second.shape, true};
    }
    expected[kGradient + name] = shape;
  }
  return expected;
}

bool Padded(const at::Tensor& mask) { return mask.min().item<int64_t>() == 0; }

double Largest(const at::Tensor& tensor) { return tensor.numel() == 0 ? 0 : tensor.abs().max().item<double>(); }

double Error(const at::Tensor& value, const at::Tensor& expected, double scale) {
  const double difference = Largest(value.detach().to(at::kCPU, at::kDouble) - expected);
  return difference == 0 ? 0 : difference / scale;
}

// What a gradient's error is measured by: its own largest element. A key's bias moves all scores of a row alike, so its
// gradient is zero but for rounding, and the weight's beside it stands in.
std::string ScaleName(const std::string& name) {
  constexpr std::string_view kKeyBias = "key.bias";
  if (!name.ends_with(kKeyBias)) return name;
  return name.substr(0, name.size() - kKeyBias.size()) + "key.weight";
}

}  // namespace

absl::StatusOr<ModelCase> ModelCase::Read(const std::string& path) {
  absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Read(path);
  if (!file.ok()) return file.status();
  return Parse(path, *std::move(file));
}

absl::StatusOr<ModelCase> ModelCase::Parse(const std::string& name, SafetensorsFile file) {
  ModelCase result(std::move(file));
  const absl::StatusOr<ModelConfig> config = ReadConfig(name, result.file_.metadata());
  if (!config.ok()) return config.status();
  result.config_ = *config;
  const NamedEntries& entries = result.file_.entries();
  const auto ids = entries.find("input.ids");
  if (ids == entries.end() || ids->second.shape.size() != 2) {
    return Unusable(name, "input.ids of shape [batch, tokens] is missing");
  }
  const NamedShapes expected = ExpectedTensors(*config, entries, ids->second.shape[0], ids->second.shape[1]);
  if (absl::Status status = MatchTensors(name, expected, entries); !status.ok()) return status;

  const auto tensor = [&](const std::string& key) { return ToTensor(entries.at(key)); };
  result.input_.ids = tensor("input.ids");
  result.input_.boxes = tensor("input.boxes");
  result.input_.labels = tensor("input.labels");
  result.input_.attention_mask = tensor("input.attention_mask");
  if (result.input_.ids.numel() == 0) return Unusable(name, "its batch is empty");
  result.input_.padded = Padded(result.input_.attention_mask);
  if (config->image) result.input_.image = tensor("input.image").to(at::kFloat);
  result.logits_ = tensor("logits").to(at::kDouble);
  result.loss_ = tensor("loss").to(at::kDouble);
  for (const auto& [key, entry] : entries) {
    if (key.starts_with(kWeight)) result.weights_[key.substr(sizeof kWeight - 1)] = entry;
    if (!key.starts_with(kGradient)) continue;
    const std::string parameter = key.substr(sizeof kGradient - 1);
    at::Tensor gradient = tensor(key).to(at::kDouble);
    if (entries.contains(kGradientRows + parameter)) {
      const at::Tensor rows = tensor(kGradientRows + parameter);
      const at::Tensor all = at::zeros(entries.at(kWeight + parameter).shape, at::kDouble);
      try {
        gradient = all.index_copy(0, rows, gradient);
      } catch (const c10::Error&) {
        return Unusable(name, absl::StrCat(kGradientRows, parameter, " names rows that are not there"));
      }
    }
    result.gradients_[parameter] = gradient;
  }
  return result;
}

Model ModelCase::MakeModel(at::Device device) const {
  Model model = trainer::MakeModel(config_, device, /*seed=*/0);
  CopyParameters(weights_, model);
  return model;
}

absl::StatusOr<CaseError> ModelCase::Compare(Model& model, const Backend& backend, StepKind step) const {
  const at::Device device = model.word_embeddings.device();
  const AttentionProblem problem = MakeProblem(config_, input_.ids.size(0), input_.ids.size(1), device.is_cuda(),
                                               at::kFloat, input_.padded, /*training=*/true);
  if (const std::optional<std::string> reason = backend.refuse(problem)) return absl::InvalidArgumentError(*reason);
  try {
    return Measure(model, backend, step);
  } catch (const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    return absl::InvalidArgumentError(
        absl::StrCat("the model cannot run this case: ", text.substr(0, text.find('\n'))));
  }
}

CaseError ModelCase::Measure(Model& model, const Backend& backend, StepKind step) const {
  Batch input = input_;
  for (at::Tensor* tensor : input.Tensors()) *tensor = tensor->to(model.word_embeddings.device());
  std::optional<FusedTrainingStep> fused;
  if (step != StepKind::kReference) fused.emplace(model, at::kFloat, at::kFloat, /*seed=*/0);
  const ModelOutput output = fused.has_value() ? fused->Forward(model, backend, input, /*training=*/true)
                                               : Forward(model, backend, input, at::kFloat, /*training=*/true);
  output.loss.backward();

  CaseError result;
  result.logits = Error(output.logits, logits_, Largest(logits_));
  result.loss = Error(output.loss, loss_, Largest(loss_));
  VisitParameters(model, [&](const ParameterSpec& spec, at::Tensor& tensor) {
    const auto expected = gradients_.find(spec.name);
    if (expected == gradients_.end()) return;
    const at::Tensor gradient = tensor.grad().defined() ? tensor.grad() : at::zeros(spec.shape);
    const double error = Error(gradient, expected->second, Largest(gradients_.at(ScaleName(spec.name))));
    ++result.compared_gradients;
    // NaN is the worst of all, and the first one stays.
    if (!std::isnan(result.gradients) && !(error <= result.gradients)) {
      result.gradients = error;
      result.worst_parameter = spec.name;
    }
  });
  return result;
}

std::string Report(const std::string& path, const ModelConfig& config, const CaseError& error) {
  const char* const biases = config.relative_bias && config.spatial_bias ? "both biases"
                             : config.relative_bias                      ? "the 1-D bias"
                             : config.spatial_bias                       ? "the 2-D bias"
                                                                         : "no bias";
  std::string text =
      absl::StrFormat("%s: %d layers of width %d, %s%s%s\n", path, config.layers, config.hidden_size, biases,
                      config.train_bias_tables ? ", tables trained" : "", config.image ? ", with an image" : "");
  absl::StrAppend(&text, "largest error, relative to the largest expected value of each tensor\n");
  absl::StrAppendFormat(&text, "  logits     %.1e\n  loss       %.1e\n", error.logits, error.loss);
  const std::string where = error.worst_parameter.empty() ? "" : absl::StrCat("in ", error.worst_parameter, ", ");
  absl::StrAppendFormat(&text, "  gradients  %.1e (%s%d compared)\n", error.gradients, where, error.compared_gradients);
  absl::StrAppendFormat(&text, "%s the bound of %.0e", error.Within(kVerifyBound) ? "within" : "NOT within",
                        kVerifyBound);
  return text;
}

}  // namespace attnfleet::trainer
