#include "client/spec_flags.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "proto/part.h"
#include "proto/spec.h"
#include "proto/spec_text.h"
#include "proto/suggest.h"
#include "proto/support/state_dir.h"

namespace attnfleet::client {
namespace {

using v1::BenchmarkSpec;
using v1::TrainingSettings;
using Setter = std::function<absl::Status(const std::string&, BenchmarkSpec&)>;

// One row: a flag, the field of the spec that it sets (as ValidateSpec names it), and how.
struct SpecFlag {
  std::string name;
  std::string value;
  std::string help;
  std::string field;
  Setter set;
};

template <typename Value>
Setter With(absl::StatusOr<Value> (*parse)(const std::string&), std::function<void(BenchmarkSpec&, Value)> store) {
  return [parse, store](const std::string& text, BenchmarkSpec& spec) {
    const absl::StatusOr<Value> value = parse(text);
    if (value.ok()) store(spec, *value);
    return value.status();
  };
}

Setter Int(void (TrainingSettings::*set)(int32_t)) {
  return With<int>(ParseInt, [set](BenchmarkSpec& spec, int value) { (spec.mutable_training()->*set)(value); });
}

Setter Number(void (TrainingSettings::*set)(double)) {
  return With<double>(ParseNumber,
                      [set](BenchmarkSpec& spec, double value) { (spec.mutable_training()->*set)(value); });
}

Setter Switch(const std::vector<void (TrainingSettings::*)(bool)>& setters) {
  return With<bool>(ParseBool, [setters](BenchmarkSpec& spec, bool value) {
    for (const auto set : setters) (spec.mutable_training()->*set)(value);
  });
}

// A flag that takes one of the values' names.
template <typename Enum>
Setter OneOf(const std::string& kind, std::vector<Enum> values, std::string (*name)(Enum),
             std::function<void(BenchmarkSpec&, Enum)> store) {
  return [=](const std::string& text, BenchmarkSpec& spec) {
    std::vector<std::string> names;
    for (const Enum value : values) {
      if (name(value) == text) {
        store(spec, value);
        return absl::OkStatus();
      }
      names.push_back(name(value));
    }
    return absl::InvalidArgumentError(UnknownName(kind, text, names));
  };
}

absl::StatusOr<int> ParsePositive(const std::string& text) {
  absl::StatusOr<int> value = ParseInt(text);
  if (value.ok() && *value < 1) return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is less than 1"));
  return value;
}

absl::Status SetShapes(const std::string& text, BenchmarkSpec& spec) {
  spec.clear_shapes();
  const std::vector<std::string> parts = absl::StrSplit(text, ',');
  for (const std::string& part : parts) {
    const std::vector<std::string> numbers = absl::StrSplit(part, 'x');
    int batch = 0;
    int sequence_length = 0;
    if (numbers.size() != 2 || !absl::SimpleAtoi(numbers[0], &batch) ||
        !absl::SimpleAtoi(numbers[1], &sequence_length)) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", part, "\" is no shape; give BATCHxSEQUENCE, for example 32x128,32x512"));
    }
    if (batch < 1 || sequence_length < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", part, "\" is out of range; batch and sequence length are at least 1"));
    }
    v1::Shape* shape = spec.add_shapes();
    shape->set_batch(batch);
    shape->set_sequence_length(sequence_length);
  }
  return absl::OkStatus();
}

// A list of numbers, each at least 1, into a repeated field.
Setter Numbers(google::protobuf::RepeatedField<int32_t>* (BenchmarkSpec::*field)()) {
  return [field](const std::string& text, BenchmarkSpec& spec) {
    const absl::StatusOr<std::vector<std::string>> parts = ParseNames(text);
    if (!parts.ok()) return parts.status();
    (spec.*field)()->Clear();
    for (const std::string& part : *parts) {
      const absl::StatusOr<int> value = ParsePositive(part);
      if (!value.ok()) return value.status();
      (spec.*field)()->Add(*value);
    }
    return absl::OkStatus();
  };
}

Setter Text(const std::function<void(BenchmarkSpec&, const std::string&)>& store) {
  return [store](const std::string& text, BenchmarkSpec& spec) {
    store(spec, text);
    return absl::OkStatus();
  };
}

absl::Status SetBackends(const std::string& text, BenchmarkSpec& spec) {
  const absl::StatusOr<std::vector<std::string>> names = ParseNames(text);
  if (!names.ok()) return names.status();
  spec.clear_backends();
  for (const std::string& name : *names) spec.add_backends(name);
  return absl::OkStatus();
}

absl::Status SetSeed(const std::string& text, BenchmarkSpec& spec) {
  uint64_t seed = 0;
  if (!absl::SimpleAtoi(text, &seed)) {
    return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is no whole number >= 0"));
  }
  spec.mutable_training()->set_seed(seed);
  return absl::OkStatus();
}

absl::Status SetPreset(const std::string& text, BenchmarkSpec& spec) {
  const std::vector<std::string> names = PresetNames();
  if (std::find(names.begin(), names.end(), text) == names.end()) {
    return absl::InvalidArgumentError(UnknownName("preset", text, names));
  }
  spec.set_preset(text);
  return absl::OkStatus();
}

absl::Status AddLabel(const std::string& text, BenchmarkSpec& spec) {
  const std::pair<std::string, std::string> label = absl::StrSplit(text, absl::MaxSplits('=', 1));
  if (label.first.empty() || !absl::StrContains(text, "=")) {
    return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is no label; give NAME=VALUE"));
  }
  (*spec.mutable_requirements()->mutable_labels())[label.first] = label.second;
  return absl::OkStatus();
}

absl::Status SetModelSize(const std::string& text, BenchmarkSpec& spec) {
  static const Setter* const setter = new Setter(OneOf<v1::ModelSize>(
      "model", {v1::MODEL_SIZE_TINY, v1::MODEL_SIZE_BASE, v1::MODEL_SIZE_LARGE}, ModelSizeName,
      [](BenchmarkSpec& target, v1::ModelSize size) { target.mutable_training()->set_model_size(size); }));
  return (*setter)(text, spec);
}

std::string PresetHelp() {
  std::string text = "settings to start from; flags override them";
  for (const std::string& name : PresetNames()) absl::StrAppend(&text, "\n", name, ": ", PresetDescription(name));
  return text;
}

const std::vector<SpecFlag>& Table() {
  static const auto* table = new std::vector<SpecFlag>{
      {"preset", "NAME", PresetHelp(), "preset", SetPreset},
      {"backends", "NAME,...", "attention backends to compare (see `attnfleet backends`); default eager,sdpa",
       "backends", SetBackends},
      {"shapes", "BxS,...", "batch x sequence length: 32x128,32x512", "shapes", SetShapes},
      {"batch", "N,...", "with --seq: every batch at every sequence length, instead of --shapes", "batches",
       Numbers(&BenchmarkSpec::mutable_batches)},
      {"seq", "N,...", "sequence lengths; see --batch", "sequence_lengths",
       Numbers(&BenchmarkSpec::mutable_sequence_lengths)},
      {"repetitions", "N", "independent runs of each cell, each in a process of its own; default 3", "repetitions",
       With<int>(ParseInt, [](BenchmarkSpec& spec, int value) { spec.set_repetitions(value); })},
      {"steps", "N", "timed training steps of a run, at most; default 300", "training.timed_steps",
       Int(&TrainingSettings::set_timed_steps)},
      {"ci-width", "PART",
       "stop once the 95 % confidence interval of it/s is no wider than this part of it; 0: always --steps;\n"
       "default 0.5%",
       "training.ci_width",
       With<double>(ParsePart,
                    [](BenchmarkSpec& spec, double value) { spec.mutable_training()->set_ci_width(value); })},
      {"warmup", "N", "warm-up steps before them, at least; default 10", "training.warmup_steps",
       Int(&TrainingSettings::set_warmup_steps)},
      {"warmup-limit", "N", "warm-up goes on until the speed is stable, but not for more steps; default 100",
       "training.warmup_limit_steps", Int(&TrainingSettings::set_warmup_limit_steps)},
      {"check", "on|off", "compare each backend with eager in fp64 after the timed steps; default on",
       "training.numerical_check", Switch({&TrainingSettings::set_numerical_check})},
      {"model", "SIZE", "tiny, base or large; default base", "training.model_size", SetModelSize},
      {"size", "SIZE", "the same as --model", "training.model_size", SetModelSize},
      {"labels", "N", "labels of the token-classification head; default 10", "training.num_labels",
       Int(&TrainingSettings::set_num_labels)},
      {"biases", "on|off", "both attention biases, 1-D and 2-D; default on", "training.relative_attention_bias",
       Switch({&TrainingSettings::set_relative_attention_bias, &TrainingSettings::set_spatial_attention_bias})},
      {"relative-bias", "on|off", "the 1-D attention bias alone", "training.relative_attention_bias",
       Switch({&TrainingSettings::set_relative_attention_bias})},
      {"spatial-bias", "on|off", "the 2-D attention bias alone", "training.spatial_attention_bias",
       Switch({&TrainingSettings::set_spatial_attention_bias})},
      {"image", "on|off", "197 visual tokens after the text; default off", "training.image",
       Switch({&TrainingSettings::set_image})},
      {"train-bias-tables", "on|off", "train the bias tables, as Microsoft's model does; default off",
       "training.train_bias_tables", Switch({&TrainingSettings::set_train_bias_tables})},
      {"hidden-dropout", "P", "dropout probability outside attention; default 0.1", "training.hidden_dropout",
       Number(&TrainingSettings::set_hidden_dropout)},
      {"attention-dropout", "P", "dropout probability of the attention probabilities; default 0.1",
       "training.attention_dropout", Number(&TrainingSettings::set_attention_dropout)},
      {"dropout-placement", "WHAT",
       "what attention dropout drops: probabilities, output, or published (eager probabilities, others output)",
       "training.attention_dropout_placement",
       OneOf<v1::DropoutPlacement>(
           "dropout placement",
           {v1::DROPOUT_PLACEMENT_PROBABILITIES, v1::DROPOUT_PLACEMENT_OUTPUT, v1::DROPOUT_PLACEMENT_PUBLISHED},
           DropoutPlacementName,
           [](BenchmarkSpec& spec, v1::DropoutPlacement v) {
             spec.mutable_training()->set_attention_dropout_placement(v);
           })},
      {"precision", "KIND", "auto (fp32 on the CPU, bf16-mixed on CUDA), fp32, tf32, bf16-mixed or bf16; default auto",
       "training.precision",
       OneOf<v1::Precision>(
           "precision",
           {v1::PRECISION_AUTO, v1::PRECISION_FP32, v1::PRECISION_TF32, v1::PRECISION_BF16_MIXED, v1::PRECISION_BF16},
           PrecisionName, [](BenchmarkSpec& spec, v1::Precision v) { spec.mutable_training()->set_precision(v); })},
      {"optimizer", "NAME", "adam or adamw; default adamw", "training.optimizer",
       OneOf<v1::Optimizer>("optimizer", {v1::OPTIMIZER_ADAM, v1::OPTIMIZER_ADAMW}, OptimizerName,
                            [](BenchmarkSpec& spec, v1::Optimizer v) { spec.mutable_training()->set_optimizer(v); })},
      {"step", "KIND",
       "reference (LibTorch's operations one by one), fused (own operations), or fused-bf16-stream (those with the "
       "residual stream in bf16, for precision bf16-mixed: less exact); default reference",
       "training.step",
       OneOf<v1::TrainingStep>(
           "step", {v1::TRAINING_STEP_REFERENCE, v1::TRAINING_STEP_FUSED, v1::TRAINING_STEP_FUSED_BF16_STREAM},
           TrainingStepName, [](BenchmarkSpec& spec, v1::TrainingStep v) { spec.mutable_training()->set_step(v); })},
      {"learning-rate", "RATE", "default 1e-5", "training.learning_rate", Number(&TrainingSettings::set_learning_rate)},
      {"data-loader-threads", "N", "threads that make batches; 0 = in the training loop; default 16",
       "training.data_loader_threads", Int(&TrainingSettings::set_data_loader_threads)},
      {"seed", "N", "of repetition 0; repetition r uses N + r; default 1", "training.seed", SetSeed},
      {"boxes", "LAYOUT", "document (pages of lines and columns, padded), random, or unit (every box is 1,1,1,1)",
       "training.boxes",
       OneOf<v1::BoxLayout>("box layout", {v1::BOX_LAYOUT_DOCUMENT, v1::BOX_LAYOUT_RANDOM, v1::BOX_LAYOUT_UNIT},
                            BoxLayoutName,
                            [](BenchmarkSpec& spec, v1::BoxLayout v) { spec.mutable_training()->set_boxes(v); })},
      {"data-file", "NAME", "documents to train on: a file in the worker's --files folder; default synthetic ones",
       "training.data_file",
       Text([](BenchmarkSpec& spec, const std::string& text) { spec.mutable_training()->set_data_file(text); })},
      {"weights-file", "NAME",
       "checkpoint to begin with: a file in the worker's --files folder; default random weights",
       "training.weights_file",
       Text([](BenchmarkSpec& spec, const std::string& text) { spec.mutable_training()->set_weights_file(text); })},
      {"device", "cpu|cuda", "the kind of device to run on; default: whatever is there, a GPU before the CPU",
       "requirements.device_kind",
       OneOf<v1::DeviceKind>(
           "device", {v1::DEVICE_KIND_CPU, v1::DEVICE_KIND_CUDA}, DeviceKindName,
           [](BenchmarkSpec& spec, v1::DeviceKind v) { spec.mutable_requirements()->set_device_kind(v); })},
      {"device-name", "TEXT", "only devices whose name contains TEXT, for example H100",
       "requirements.device_name_contains", Text([](BenchmarkSpec& spec, const std::string& text) {
         spec.mutable_requirements()->set_device_name_contains(text);
       })},
      {"min-memory", "GB", "only devices with so much memory (1 GB = 1e9 bytes)", "requirements.min_memory_bytes",
       With<double>(ParseNumber,
                    [](BenchmarkSpec& spec, double gigabytes) {
                      const double bytes = std::clamp(gigabytes * 1e9, -1.0, 1e18);
                      spec.mutable_requirements()->set_min_memory_bytes(static_cast<int64_t>(bytes));
                    })},
      {"label", "NAME=VALUE", "only workers with this label; may be given several times", "requirements.labels",
       AddLabel},
      {"count", "N", "start nothing new while fewer than N slots fit, busy or not; default 1", "requirements.count",
       With<int>(ParseInt, [](BenchmarkSpec& spec, int value) { spec.mutable_requirements()->set_count(value); })},
      {"placement", "any|every",
       "any: each shape goes to one slot that fits; every: each slot that fits when it starts gets the whole\n"
       "benchmark, to compare the nodes of a fleet; default any",
       "placement",
       OneOf<v1::Placement>("placement", {v1::PLACEMENT_ANY, v1::PLACEMENT_EVERY}, PlacementName,
                            [](BenchmarkSpec& spec, v1::Placement v) { spec.set_placement(v); })},
      {"priority", "N", "higher goes first, before every fair share; -1000 to 1000; default 0", "priority",
       With<int>(ParseInt, [](BenchmarkSpec& spec, int value) { spec.set_priority(value); })},
      {"max-slots", "N", "on N slots at once at most; default no limit", "max_slots",
       With<int>(ParseInt, [](BenchmarkSpec& spec, int value) { spec.set_max_slots(value); })},
      {"deadline", "TIME", "what has not ended so long after the submit is cancelled: 90s, 30m, 2h; default none",
       "deadline_seconds",
       With<double>(ParseSeconds, [](BenchmarkSpec& spec, double value) { spec.set_deadline_seconds(value); })},
      {"run-timeout", "TIME",
       "a run that takes longer is stopped and has failed; it is not tried again: 90, 90s, 5m; default 30m",
       "run_timeout_seconds",
       With<double>(ParseSeconds, [](BenchmarkSpec& spec, double value) { spec.set_run_timeout_seconds(value); })},
      {"max-attempts", "N", "how often a run is tried whose trainer crashes or whose worker is lost; default 3",
       "max_attempts", With<int>(ParseInt, [](BenchmarkSpec& spec, int value) { spec.set_max_attempts(value); })},
      {"max-worker-losses", "N", "a run that loses its worker N times is quarantined: it has failed; default 2",
       "max_worker_losses",
       With<int>(ParseInt, [](BenchmarkSpec& spec, int value) { spec.set_max_worker_losses(value); })},
      {"name", "TEXT", "free text to know it by", "name",
       Text([](BenchmarkSpec& spec, const std::string& text) { spec.set_name(text); })},
  };
  return *table;
}

bool IsFieldCharacter(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.'; }

const SpecFlag* FlagOfField(const std::string& field) {
  for (const SpecFlag& row : Table()) {
    if (row.field == field) return &row;
  }
  return nullptr;
}

// Replaces every word of `text` that is a field by what `name` gives for it.
std::string ReplaceFields(const std::string& text, const std::function<std::string(const SpecFlag&)>& name) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    size_t end = i;
    while (end < text.size() && IsFieldCharacter(text[end])) ++end;
    if (end == i) {
      result.push_back(text[i++]);
      continue;
    }
    const std::string word = text.substr(i, end - i);
    const SpecFlag* row = FlagOfField(word);
    result += row != nullptr ? name(*row) : word;
    i = end;
  }
  return result;
}

// Flags replace what the file says, lists as a whole, and the shape axis in whichever form it was given.
BenchmarkSpec Overlay(BenchmarkSpec file, const BenchmarkSpec& flags) {
  if (!flags.backends().empty()) file.clear_backends();
  if (!flags.shapes().empty()) {
    file.clear_shapes();
    file.clear_batches();
    file.clear_sequence_lengths();
  }
  if (!flags.batches().empty() || !flags.sequence_lengths().empty()) file.clear_shapes();
  if (!flags.batches().empty()) file.clear_batches();
  if (!flags.sequence_lengths().empty()) file.clear_sequence_lengths();
  file.MergeFrom(flags);
  return file;
}

}  // namespace

std::vector<Flag> SpecFlags::Flags() {
  std::vector<Flag> flags;
  for (const SpecFlag& row : Table()) {
    flags.push_back({row.name, row.value, row.help, [this, &row](const std::string& text) {
                       given_fields_.insert(row.field);
                       return row.set(text, given_);
                     }});
  }
  flags.push_back({"spec", "FILE",
                   "read the benchmark from FILE (protobuf text format of BenchmarkSpec; - = standard input);\n"
                   "flags given beside it override what it says",
                   SetString(file_)});
  return flags;
}

absl::Status SpecFlags::NameFlag(const absl::Status& error) const {
  if (error.code() != absl::StatusCode::kInvalidArgument) return error;
  const std::string message(error.message());
  const size_t colon = message.find(": ");
  if (colon == std::string::npos) return error;
  const std::string fields = message.substr(0, colon);  // "shapes[0].batch", "backends x shapes x repetitions"
  bool known = false;
  bool given = false;
  const std::string named = ReplaceFields(fields, [&](const SpecFlag& row) {
    known = true;
    given = given || given_fields_.count(row.field) > 0;
    return "--" + row.name;
  });
  if (!known || (!given && !file_.empty())) {
    return absl::InvalidArgumentError(file_.empty() ? message : absl::StrCat(file_, ": ", message));
  }
  // Behind the colon only the two axes go by another name than their flags.
  const std::string rest = ReplaceFields(message.substr(colon), [](const SpecFlag& row) {
    return row.field == "batches" || row.field == "sequence_lengths" ? "--" + row.name : row.field;
  });
  return absl::InvalidArgumentError(named + rest);
}

absl::StatusOr<BenchmarkSpec> SpecFlags::Spec(const std::optional<std::string>& file_text,
                                              const std::vector<std::string>& known_backends) const {
  BenchmarkSpec spec = given_;
  if (file_text.has_value()) {
    const absl::StatusOr<BenchmarkSpec> file = ParseSpecText(*file_text, file_ == "-" ? "standard input" : file_);
    if (!file.ok()) return file.status();
    spec = Overlay(*file, given_);
  }
  if (const absl::Status status = ApplyPreset(spec); !status.ok()) return NameFlag(status);
  if (const absl::Status status = ValidateSpec(spec, known_backends); !status.ok()) return NameFlag(status);
  return spec;
}

absl::StatusOr<std::optional<std::string>> ReadSpecFile(const std::string& file) {
  if (file.empty()) return std::nullopt;
  const absl::StatusOr<std::string> text = ReadFile(file == "-" ? "/dev/stdin" : file);
  if (!text.ok()) return absl::InvalidArgumentError(absl::StrCat("--spec: ", std::string(text.status().message())));
  return *text;
}

}  // namespace attnfleet::client
