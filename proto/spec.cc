#include "proto/spec.h"

#include <algorithm>
#include <functional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/suggest.h"
#include "proto/utf8.h"

namespace attnfleet {
namespace {

struct Preset {
  const char* name;
  const char* description;
  std::function<void(v1::BenchmarkSpec&)> fill;  // sets the fields in which it differs from the defaults
};

void AddShape(v1::BenchmarkSpec& spec, int batch, int sequence_length) {
  v1::Shape* shape = spec.add_shapes();
  shape->set_batch(batch);
  shape->set_sequence_length(sequence_length);
}

// The model people train: biases on, dropout on the attention probabilities, pages padded to unequal lengths.
v1::BenchmarkSpec Defaults() {
  v1::BenchmarkSpec spec;
  spec.add_backends("eager");
  spec.add_backends("sdpa");
  spec.set_repetitions(3);
  spec.set_run_timeout_seconds(1800);
  spec.set_max_attempts(3);
  spec.set_max_worker_losses(kDefaultWorkerLosses);
  spec.set_placement(v1::PLACEMENT_ANY);
  v1::TrainingSettings& training = *spec.mutable_training();
  training.set_warmup_steps(10);
  training.set_timed_steps(300);
  training.set_model_size(v1::MODEL_SIZE_BASE);
  training.set_num_labels(10);
  training.set_relative_attention_bias(true);
  training.set_spatial_attention_bias(true);
  training.set_hidden_dropout(0.1);
  training.set_attention_dropout(0.1);
  training.set_precision(v1::PRECISION_AUTO);
  training.set_optimizer(v1::OPTIMIZER_ADAMW);
  training.set_learning_rate(1e-5);
  training.set_data_loader_threads(16);
  training.set_seed(1);
  training.set_boxes(v1::BOX_LAYOUT_DOCUMENT);
  training.set_image(false);
  training.set_train_bias_tables(false);
  training.set_attention_dropout_placement(v1::DROPOUT_PLACEMENT_PROBABILITIES);
  training.set_warmup_limit_steps(100);
  training.set_ci_width(0.005);
  training.set_numerical_check(true);
  training.set_step(v1::TRAINING_STEP_REFERENCE);
  return spec;
}

void FillTiny(v1::BenchmarkSpec& spec) {
  AddShape(spec, 4, 64);
  AddShape(spec, 4, 128);
  v1::TrainingSettings& training = *spec.mutable_training();
  training.set_model_size(v1::MODEL_SIZE_TINY);
  training.set_warmup_steps(5);
  training.set_warmup_limit_steps(10);
  training.set_timed_steps(20);
  training.set_ci_width(0);
  training.set_data_loader_threads(2);
}

// The published benchmark: text only, both biases off, Adam at 0.02, every box (1, 1, 1, 1), mean of 2 runs of several
// hundred batches.
void FillPublished(v1::BenchmarkSpec& spec) {
  for (const int batch : {32, 64, 128}) {
    for (const int sequence_length : {128, 512, 1024}) {
      if (batch == 128 && sequence_length == 1024) continue;  // not in the table
      AddShape(spec, batch, sequence_length);
    }
  }
  spec.set_repetitions(2);
  v1::TrainingSettings& training = *spec.mutable_training();
  training.set_relative_attention_bias(false);
  training.set_spatial_attention_bias(false);
  training.set_optimizer(v1::OPTIMIZER_ADAM);
  training.set_learning_rate(0.02);
  training.set_boxes(v1::BOX_LAYOUT_UNIT);
  training.set_attention_dropout_placement(v1::DROPOUT_PLACEMENT_PUBLISHED);
}

const std::vector<Preset>& Presets() {
  static const std::vector<Preset>* presets = new std::vector<Preset>{
      {"stock",
       "the model people train: base size, attention biases on, documents with padding; the default; needs shapes",
       [](v1::BenchmarkSpec&) {}},
      {"published", "the eight shapes and settings of the published table: base size, attention biases off",
       FillPublished},
      {"tiny", "a model of 2 layers at 4x64 and 4x128, for a CPU: one to two minutes on two cores", FillTiny},
  };
  return *presets;
}

absl::Status Invalid(const std::string& text) { return absl::InvalidArgumentError(text); }

template <typename Number>
absl::Status CheckRange(const std::string& field, Number value, Number least, Number most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return Invalid(absl::StrCat(field, ": ", value, " is out of range; ", least, " to ", most, " is possible"));
}

absl::Status CheckProbability(const std::string& field, double value) {
  if (value >= 0 && value < 1) return absl::OkStatus();  // false for NaN
  return Invalid(absl::StrCat(field, ": ", value, " is no dropout probability; give 0 <= p < 1"));
}

absl::Status CheckFileName(const std::string& field, const std::string& name) {
  if (name.empty() || IsPlainFileName(name)) return absl::OkStatus();
  return Invalid(absl::StrCat(field, ": \"", name, "\" is no plain file name; give the name of a file in the worker's ",
                              "--files folder"));
}

absl::Status CheckText(const std::string& field, const std::string& text) {
  if (text.size() <= kMaxText) return absl::OkStatus();
  return Invalid(absl::StrCat(field, ": ", text.size(), " bytes long; at most ", kMaxText, " are possible"));
}

bool IsName(const std::string& text) {
  if (text.empty() || text.size() > 64) return false;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    if (!plain) return false;
  }
  return true;
}

absl::Status ValidateTraining(const v1::TrainingSettings& training) {
  const auto enum_error = [](const std::string& field, int value) {
    return Invalid(absl::StrCat("training.", field, ": ", value, " is no value of this field"));
  };
  // A value that this build does not know can come over the wire; 0 cannot remain after ApplyPreset.
  if (!v1::ModelSize_IsValid(training.model_size()) || training.model_size() == 0) {
    return enum_error("model_size", training.model_size());
  }
  if (!v1::Precision_IsValid(training.precision()) || training.precision() == 0) {
    return enum_error("precision", training.precision());
  }
  if (!v1::Optimizer_IsValid(training.optimizer()) || training.optimizer() == 0) {
    return enum_error("optimizer", training.optimizer());
  }
  if (!v1::BoxLayout_IsValid(training.boxes()) || training.boxes() == 0) return enum_error("boxes", training.boxes());
  if (!v1::DropoutPlacement_IsValid(training.attention_dropout_placement()) ||
      training.attention_dropout_placement() == 0) {
    return enum_error("attention_dropout_placement", training.attention_dropout_placement());
  }
  if (!v1::TrainingStep_IsValid(training.step()) || training.step() == 0) return enum_error("step", training.step());
  if (training.step() == v1::TRAINING_STEP_FUSED && training.precision() == v1::PRECISION_BF16) {
    return Invalid(
        "training.step: the fused step keeps its weights in fp32; give precision bf16-mixed, or step reference");
  }
  if (training.step() == v1::TRAINING_STEP_FUSED_BF16_STREAM && training.precision() != v1::PRECISION_AUTO &&
      training.precision() != v1::PRECISION_BF16_MIXED) {
    return Invalid("training.step: fused-bf16-stream is for precision bf16-mixed; give that, or step fused");
  }
  for (const absl::Status& status : {
           CheckRange("training.warmup_steps", training.warmup_steps(), 0, kMaxSteps),
           CheckRange("training.warmup_limit_steps", training.warmup_limit_steps(), training.warmup_steps(), kMaxSteps),
           CheckRange("training.timed_steps", training.timed_steps(), 1, kMaxSteps),
           CheckRange("training.num_labels", training.num_labels(), 2, 1000),
           CheckProbability("training.hidden_dropout", training.hidden_dropout()),
           CheckProbability("training.attention_dropout", training.attention_dropout()),
           CheckRange("training.data_loader_threads", training.data_loader_threads(), 0, 256),
           CheckFileName("training.data_file", training.data_file()),
           CheckFileName("training.weights_file", training.weights_file()),
       }) {
    if (!status.ok()) return status;
  }
  if (!(training.learning_rate() > 0 && training.learning_rate() <= 1)) {
    return Invalid(
        absl::StrCat("training.learning_rate: ", training.learning_rate(), " is out of range; give 0 < rate <= 1"));
  }
  if (!(training.ci_width() >= 0 && training.ci_width() < 1)) {
    return Invalid(absl::StrCat("training.ci_width: ", training.ci_width(),
                                " is out of range; give a part of it/s, 0 <= width < 1, for example 0.005"));
  }
  return absl::OkStatus();
}

absl::Status ValidateBackends(const v1::BenchmarkSpec& spec, const std::vector<std::string>& known) {
  if (spec.backends().empty()) return Invalid("backends: at least one is needed, for example \"eager\"");
  std::set<std::string> seen;
  for (const std::string& backend : spec.backends()) {
    const bool found = known.empty() ? IsName(backend) : std::find(known.begin(), known.end(), backend) != known.end();
    if (!found) return Invalid(absl::StrCat("backends: ", UnknownName("backend", backend, known)));
    if (!seen.insert(backend).second) return Invalid(absl::StrCat("backends: \"", backend, "\" is given twice"));
  }
  return absl::OkStatus();
}

absl::Status ValidateShapes(const v1::BenchmarkSpec& spec) {
  if (spec.shapes().empty()) {
    return Invalid("shapes: at least one is needed (batch x sequence length), for example 32x128");
  }
  std::set<std::pair<int, int>> seen;
  for (int i = 0; i < spec.shapes_size(); ++i) {
    const v1::Shape& shape = spec.shapes(i);
    const std::string field = absl::StrCat("shapes[", i, "]");
    for (const absl::Status& status : {
             CheckRange(field + ".batch", shape.batch(), 1, kMaxBatch),
             CheckRange(field + ".sequence_length", shape.sequence_length(), 1, kMaxSequenceLength),
         }) {
      if (!status.ok()) return status;
    }
    if (!seen.emplace(shape.batch(), shape.sequence_length()).second) {
      return Invalid(absl::StrCat(field, ": ", FormatShape(shape), " is given twice"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string> PresetNames() {
  std::vector<std::string> names;
  for (const Preset& preset : Presets()) names.emplace_back(preset.name);
  return names;
}

std::string PresetDescription(const std::string& name) {
  for (const Preset& preset : Presets()) {
    if (name == preset.name) return preset.description;
  }
  return "";
}

absl::Status CheckSize(const v1::BenchmarkSpec& spec) {
  const v1::SlotRequirements& requirements = spec.requirements();
  for (const absl::Status& status : {
           CheckText("name", spec.name()),
           CheckText("preset", spec.preset()),
           CheckText("submitter", spec.submitter()),
           CheckText("requirements.device_name_contains", requirements.device_name_contains()),
           CheckText("training.data_file", spec.training().data_file()),
           CheckText("training.weights_file", spec.training().weights_file()),
       }) {
    if (!status.ok()) return status;
  }
  if (spec.backends_size() > kMaxBackends) {
    return Invalid(absl::StrCat("backends: ", spec.backends_size(), "; at most ", kMaxBackends, " are possible"));
  }
  for (const std::string& backend : spec.backends()) {
    if (absl::Status status = CheckText("backends", backend); !status.ok()) return status;
  }
  if (requirements.labels_size() > kMaxRequiredLabels) {
    return Invalid(absl::StrCat("requirements.labels: ", requirements.labels_size(), "; at most ", kMaxRequiredLabels,
                                " are possible"));
  }
  for (const auto& [name, value] : requirements.labels()) {
    for (const absl::Status& status :
         {CheckText("requirements.labels", name), CheckText("requirements.labels", value)}) {
      if (!status.ok()) return status;
    }
  }
  // Each factor is at most 2^31; a product that is too large already is not multiplied further.
  int64_t runs = std::max(1, spec.backends_size());
  for (const int64_t factor : {int64_t{spec.shapes_size()}, int64_t{spec.batches_size()},
                               int64_t{spec.sequence_lengths_size()}, int64_t{spec.repetitions()}}) {
    runs *= std::max(int64_t{1}, factor);
    if (runs > kMaxRuns) {
      return Invalid(absl::StrCat("backends x shapes x repetitions: ", runs, " runs or more; at most ", kMaxRuns,
                                  " are possible in one benchmark"));
    }
  }
  return absl::OkStatus();
}

absl::Status ApplyPreset(v1::BenchmarkSpec& spec) {
  if (absl::Status status = CheckSize(spec); !status.ok()) return status;
  const std::string name = spec.preset().empty() ? "stock" : spec.preset();
  v1::BenchmarkSpec effective = Defaults();
  bool found = false;
  for (const Preset& preset : Presets()) {
    if (name != preset.name) continue;
    preset.fill(effective);
    found = true;
  }
  if (!found) return Invalid(absl::StrCat("preset: ", UnknownName("preset", name, PresetNames())));

  if (spec.batches().empty() != spec.sequence_lengths().empty()) {
    return Invalid(spec.batches().empty()
                       ? "batches: needed beside sequence_lengths (their product is the shape axis)"
                       : "sequence_lengths: needed beside batches (their product is the shape axis)");
  }
  if (!spec.shapes().empty() && !spec.batches().empty()) {
    return Invalid("shapes: give either shapes or batches with sequence_lengths, not both");
  }
  for (const int batch : spec.batches()) {
    for (const int sequence_length : spec.sequence_lengths()) AddShape(spec, batch, sequence_length);
  }
  spec.clear_batches();
  spec.clear_sequence_lengths();

  // A repeated field is replaced, not appended to; a field that is set wins over the preset's.
  if (!spec.backends().empty()) effective.clear_backends();
  if (!spec.shapes().empty()) effective.clear_shapes();
  effective.MergeFrom(spec);
  effective.set_preset(name);
  spec = std::move(effective);
  return absl::OkStatus();
}

absl::Status CheckStepOnCpu(const v1::TrainingSettings& training) {
  if (training.step() != v1::TRAINING_STEP_FUSED_BF16_STREAM || training.precision() != v1::PRECISION_AUTO) {
    return absl::OkStatus();
  }
  return Invalid(
      "training.step: fused-bf16-stream is for precision bf16-mixed, and auto is fp32 on the CPU; give precision "
      "bf16-mixed, or step fused");
}

absl::Status ValidateSpec(const v1::BenchmarkSpec& spec, const std::vector<std::string>& known_backends) {
  for (const absl::Status& status : {
           ValidateBackends(spec, known_backends),
           ValidateShapes(spec),
           CheckRange("repetitions", spec.repetitions(), 1, kMaxRepetitions),
           CheckRange("max_attempts", spec.max_attempts(), 1, 10),
           CheckRange("max_worker_losses", spec.max_worker_losses(), 1, 10),
           CheckRange("priority", spec.priority(), -kMaxPriority, kMaxPriority),
           CheckRange("max_slots", spec.max_slots(), 0, kMaxSlots),
           CheckRange("requirements.count", spec.requirements().count(), 0, kMaxSlots),
           ValidateTraining(spec.training()),
           spec.requirements().device_kind() == v1::DEVICE_KIND_CPU ? CheckStepOnCpu(spec.training())
                                                                    : absl::OkStatus(),
       }) {
    if (!status.ok()) return status;
  }
  if (!(spec.run_timeout_seconds() >= 1 && spec.run_timeout_seconds() <= 7 * 86400)) {
    return Invalid(
        absl::StrCat("run_timeout_seconds: ", spec.run_timeout_seconds(), " is out of range; 1 to 604800 is possible"));
  }
  const double deadline = spec.deadline_seconds();
  if (deadline != 0 && !(deadline >= 1 && deadline <= kMaxDeadlineSeconds)) {
    return Invalid(absl::StrCat("deadline_seconds: ", deadline, " is out of range; 1 to ", kMaxDeadlineSeconds,
                                " seconds after the submit are possible, or 0 for none"));
  }
  if (!v1::Placement_IsValid(spec.placement()) || spec.placement() == 0) {
    return Invalid(absl::StrCat("placement: ", spec.placement(), " is no value of this field"));
  }
  for (const auto& [field, text] :
       {std::pair{"name", spec.name()}, std::pair{"submitter", spec.submitter()},
        std::pair{"requirements.device_name_contains", spec.requirements().device_name_contains()}}) {
    if (ToUtf8(text) != text) return Invalid(absl::StrCat(field, ": \"", ToUtf8(text), "\" is no UTF-8 text"));
  }
  if (absl::Status status = CheckSize(spec); !status.ok()) return status;
  if (spec.requirements().min_memory_bytes() < 0) return Invalid("requirements.min_memory_bytes: negative");
  const int64_t runs = int64_t{spec.backends_size()} * spec.shapes_size() * spec.repetitions();
  if (runs * spec.training().timed_steps() > kMaxTimedSteps) {
    return Invalid(absl::StrCat("training.timed_steps: ", spec.training().timed_steps(), " in each of ", runs,
                                " runs; at most ", kMaxTimedSteps, " steps are possible in one benchmark"));
  }
  return absl::OkStatus();
}

std::vector<v1::Job> ExpandJobs(uint64_t benchmark_id, const v1::BenchmarkSpec& spec) {
  std::vector<v1::Job> jobs;
  jobs.reserve(static_cast<size_t>(spec.shapes_size()) * static_cast<size_t>(spec.backends_size()));
  for (int group = 0; group < spec.shapes_size(); ++group) {
    for (const std::string& backend : spec.backends()) {
      v1::Job job;
      job.set_index(static_cast<uint32_t>(jobs.size()));
      job.set_backend(backend);
      *job.mutable_shape() = spec.shapes(group);
      job.set_group(static_cast<uint32_t>(group));
      for (int repetition = 0; repetition < spec.repetitions(); ++repetition) {
        v1::Run* run = job.add_runs();
        run->mutable_key()->set_benchmark_id(benchmark_id);
        run->mutable_key()->set_job_index(job.index());
        run->mutable_key()->set_repetition(static_cast<uint32_t>(repetition));
        run->set_state(v1::RUN_STATE_QUEUED);
      }
      jobs.push_back(std::move(job));
    }
  }
  return jobs;
}

std::vector<v1::Job> ExpandJobs(const v1::Benchmark& benchmark) {
  std::vector<v1::Job> cells = ExpandJobs(benchmark.id(), benchmark.spec());
  if (benchmark.nodes().empty()) return cells;
  const auto shapes = static_cast<uint32_t>(benchmark.spec().shapes_size());
  std::vector<v1::Job> jobs;
  jobs.reserve(cells.size() * static_cast<size_t>(benchmark.nodes_size()));
  for (int node = 0; node < benchmark.nodes_size(); ++node) {
    for (const v1::Job& cell : cells) {
      v1::Job& job = jobs.emplace_back(cell);
      job.set_index(static_cast<uint32_t>(jobs.size()) - 1);
      job.set_group(static_cast<uint32_t>(node) * shapes + cell.group());
      *job.mutable_node() = benchmark.nodes(node);
      for (v1::Run& run : *job.mutable_runs()) run.mutable_key()->set_job_index(job.index());
    }
  }
  return jobs;
}

v1::StartRun MakeStartRun(const v1::BenchmarkSpec& spec, const v1::RunKey& run, uint32_t attempt,
                          const std::string& slot) {
  const int cell = static_cast<int>(run.job_index() % static_cast<uint32_t>(spec.shapes_size() * spec.backends_size()));
  v1::StartRun start;
  *start.mutable_run() = run;
  start.set_attempt(attempt);
  start.set_slot(slot);
  start.set_backend(spec.backends(cell % spec.backends_size()));
  *start.mutable_shape() = spec.shapes(cell / spec.backends_size());
  *start.mutable_training() = spec.training();
  v1::TrainingSettings& training = *start.mutable_training();
  training.set_seed(spec.training().seed() + run.repetition());
  if (run.repetition() > 0) training.set_numerical_check(false);
  if (training.attention_dropout_placement() == v1::DROPOUT_PLACEMENT_PUBLISHED) {
    training.set_attention_dropout_placement(start.backend() == "eager" ? v1::DROPOUT_PLACEMENT_PROBABILITIES
                                                                        : v1::DROPOUT_PLACEMENT_OUTPUT);
  }
  start.set_timeout_seconds(spec.run_timeout_seconds());
  return start;
}

bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos && name != "." && name != "..";
}

bool IsOver(v1::BenchmarkState state) {
  return state == v1::BENCHMARK_STATE_FINISHED || state == v1::BENCHMARK_STATE_CANCELLED;
}

bool HasEnded(const v1::Benchmark& benchmark) { return IsOver(benchmark.state()); }

std::string FormatRunKey(const v1::RunKey& key) {
  return absl::StrCat(key.benchmark_id(), "/", key.job_index(), "/", key.repetition());
}

std::string FormatShape(const v1::Shape& shape) { return absl::StrCat(shape.batch(), "x", shape.sequence_length()); }

std::string ModelSizeName(v1::ModelSize size) {
  switch (size) {
    case v1::MODEL_SIZE_TINY:
      return "tiny";
    case v1::MODEL_SIZE_BASE:
      return "base";
    case v1::MODEL_SIZE_LARGE:
      return "large";
    default:
      return "unspecified";
  }
}

std::string PrecisionName(v1::Precision precision) {
  switch (precision) {
    case v1::PRECISION_AUTO:
      return "auto";
    case v1::PRECISION_FP32:
      return "fp32";
    case v1::PRECISION_BF16_MIXED:
      return "bf16-mixed";
    case v1::PRECISION_TF32:
      return "tf32";
    case v1::PRECISION_BF16:
      return "bf16";
    default:
      return "unspecified";
  }
}

std::string OptimizerName(v1::Optimizer optimizer) {
  switch (optimizer) {
    case v1::OPTIMIZER_ADAM:
      return "adam";
    case v1::OPTIMIZER_ADAMW:
      return "adamw";
    default:
      return "unspecified";
  }
}

std::string TrainingStepName(v1::TrainingStep step) {
  switch (step) {
    case v1::TRAINING_STEP_REFERENCE:
      return "reference";
    case v1::TRAINING_STEP_FUSED:
      return "fused";
    case v1::TRAINING_STEP_FUSED_BF16_STREAM:
      return "fused-bf16-stream";
    default:
      return "unspecified";
  }
}

std::string BoxLayoutName(v1::BoxLayout boxes) {
  switch (boxes) {
    case v1::BOX_LAYOUT_UNIT:
      return "unit";
    case v1::BOX_LAYOUT_RANDOM:
      return "random";
    case v1::BOX_LAYOUT_DOCUMENT:
      return "document";
    default:
      return "unspecified";
  }
}

std::string DropoutPlacementName(v1::DropoutPlacement placement) {
  switch (placement) {
    case v1::DROPOUT_PLACEMENT_PROBABILITIES:
      return "probabilities";
    case v1::DROPOUT_PLACEMENT_OUTPUT:
      return "output";
    case v1::DROPOUT_PLACEMENT_PUBLISHED:
      return "published";
    default:
      return "unspecified";
  }
}

std::string PlacementName(v1::Placement placement) {
  switch (placement) {
    case v1::PLACEMENT_ANY:
      return "any";
    case v1::PLACEMENT_EVERY:
      return "every";
    default:
      return "unspecified";
  }
}

std::string DeviceKindName(v1::DeviceKind kind) {
  switch (kind) {
    case v1::DEVICE_KIND_CPU:
      return "cpu";
    case v1::DEVICE_KIND_CUDA:
      return "cuda";
    default:
      return "unspecified";
  }
}

std::string OutcomeName(v1::Outcome outcome) {
  switch (outcome) {
    case v1::OUTCOME_MEASURED:
      return "measured";
    case v1::OUTCOME_OUT_OF_MEMORY:
      return "out of memory";
    case v1::OUTCOME_UNSUPPORTED:
      return "unsupported";
    case v1::OUTCOME_FAILED:
      return "failed";
    case v1::OUTCOME_CANCELLED:
      return "cancelled";
    default:
      return "unspecified";
  }
}

}  // namespace attnfleet
