#include "client/spec_command.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/text.h"
#include "proto/spec.h"

namespace attnfleet::client {
namespace {

constexpr std::string_view kDefaultPreset = "stock";

struct Setting {
  std::string flag;
  std::string value;
};

std::string OnOff(bool on) { return on ? "on" : "off"; }

std::string Shapes(const v1::BenchmarkSpec& spec) {
  return absl::StrJoin(spec.shapes(), ",",
                       [](std::string* out, const v1::Shape& shape) { absl::StrAppend(out, FormatShape(shape)); });
}

// In the order of `run --help`. Without priority, max-slots and deadline: they say when it ran among others, on a fleet
// as it was then, and not how it was measured or when a run has failed.
std::vector<Setting> Settings(const v1::BenchmarkSpec& spec) {
  const v1::TrainingSettings& training = spec.training();
  const v1::SlotRequirements& requirements = spec.requirements();
  return {
      {"backends", absl::StrJoin(spec.backends(), ",")},
      {"shapes", Shapes(spec)},
      {"repetitions", absl::StrCat(spec.repetitions())},
      {"steps", absl::StrCat(training.timed_steps())},
      {"ci-width", FormatExact(training.ci_width())},
      {"warmup", absl::StrCat(training.warmup_steps())},
      {"warmup-limit", absl::StrCat(training.warmup_limit_steps())},
      {"check", OnOff(training.numerical_check())},
      {"model", ModelSizeName(training.model_size())},
      {"labels", absl::StrCat(training.num_labels())},
      {"relative-bias", OnOff(training.relative_attention_bias())},
      {"spatial-bias", OnOff(training.spatial_attention_bias())},
      {"image", OnOff(training.image())},
      {"train-bias-tables", OnOff(training.train_bias_tables())},
      {"hidden-dropout", FormatExact(training.hidden_dropout())},
      {"attention-dropout", FormatExact(training.attention_dropout())},
      {"dropout-placement", DropoutPlacementName(training.attention_dropout_placement())},
      {"precision", PrecisionName(training.precision())},
      {"optimizer", OptimizerName(training.optimizer())},
      // Specs of before there was a choice have none.
      {"step", training.step() == 0 ? "reference" : TrainingStepName(training.step())},
      {"learning-rate", FormatExact(training.learning_rate())},
      {"data-loader-threads", absl::StrCat(training.data_loader_threads())},
      {"seed", absl::StrCat(training.seed())},
      {"boxes", BoxLayoutName(training.boxes())},
      {"data-file", training.data_file()},
      {"weights-file", training.weights_file()},
      {"device", DeviceKindName(requirements.device_kind())},
      {"device-name", requirements.device_name_contains()},
      {"min-memory", FormatExact(static_cast<double>(requirements.min_memory_bytes()) / 1e9)},
      {"count", absl::StrCat(std::max(requirements.count(), 1))},
      {"placement", spec.placement() == v1::PLACEMENT_EVERY ? "every" : "any"},
      {"run-timeout", FormatExact(spec.run_timeout_seconds())},
      {"max-attempts", absl::StrCat(spec.max_attempts())},
      {"max-worker-losses",
       absl::StrCat(spec.has_max_worker_losses() ? spec.max_worker_losses() : kDefaultWorkerLosses)},
  };
}

// For a shell, where it is no plain word.
std::string Quoted(const std::string& text) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,._+-%=";
  if (text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string quoted = "'";
  for (const char c : text) absl::StrAppend(&quoted, c == '\'' ? "'\\''" : std::string(1, c));
  return quoted + "'";
}

}  // namespace

std::string SpecCommand(const v1::BenchmarkSpec& spec, const std::string& where) {
  v1::BenchmarkSpec preset;
  preset.set_preset(spec.preset());
  const bool known = ApplyPreset(preset).ok();
  std::string command = "attnfleet run";
  if (known && spec.preset() != kDefaultPreset) absl::StrAppend(&command, " --preset=", spec.preset());
  const std::vector<Setting> defaults = Settings(known ? preset : v1::BenchmarkSpec());
  const std::vector<Setting> settings = Settings(spec);
  for (size_t i = 0; i < settings.size(); ++i) {
    if (settings[i].value != defaults[i].value) {
      absl::StrAppend(&command, " --", settings[i].flag, "=", Quoted(settings[i].value));
    }
  }
  const auto& labels = spec.requirements().labels();
  for (const auto& [name, value] : std::map<std::string, std::string>(labels.begin(), labels.end())) {
    absl::StrAppend(&command, " --label=", Quoted(absl::StrCat(name, "=", value)));
  }
  return command + where;
}

}  // namespace attnfleet::client
