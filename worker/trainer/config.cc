#include "worker/trainer/config.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "proto/part.h"
#include "proto/suggest.h"
#include "proto/support/flags.h"

ABSL_FLAG(std::string, backend, "sdpa", "attention backend");
ABSL_FLAG(int64_t, batch, 8, "sequences in a batch");
ABSL_FLAG(int64_t, sequence_length, 512, "tokens in a sequence");
ABSL_FLAG(std::string, model, "base", "model size");
ABSL_FLAG(std::string, device, "auto", "device");
ABSL_FLAG(int64_t, warmup, 10, "untimed steps");
ABSL_FLAG(int64_t, steps, 100, "timed steps");
ABSL_FLAG(int64_t, labels, 10, "labels of the token classifier");
ABSL_FLAG(bool, relative_bias, true, "1-D attention bias");
ABSL_FLAG(bool, spatial_bias, true, "2-D attention bias");
ABSL_FLAG(double, hidden_dropout, 0.1, "dropout of hidden states");
ABSL_FLAG(double, attention_dropout, 0.1, "dropout of attention probabilities");
ABSL_FLAG(std::string, precision, "auto", "precision");
ABSL_FLAG(std::string, optimizer, "adamw", "optimiser");
ABSL_FLAG(std::string, step, "reference", "training step");
ABSL_FLAG(double, learning_rate, 1e-5, "learning rate");
ABSL_FLAG(int64_t, data_loader_threads, 16, "threads that make batches");
ABSL_FLAG(uint64_t, seed, 0, "seed");
ABSL_FLAG(std::string, boxes, "document", "bounding boxes");
ABSL_FLAG(bool, image, false, "visual tokens");
ABSL_FLAG(bool, train_bias_tables, false, "train the bias tables");
ABSL_FLAG(std::string, dropout_placement, "probabilities", "what attention dropout drops");
ABSL_FLAG(int64_t, warmup_limit, -1, "most untimed steps");
ABSL_FLAG(std::string, ci_width, "0", "stop at this width of the confidence interval");
ABSL_FLAG(bool, check, false, "compare with eager in fp64");
ABSL_FLAG(std::string, data, "", "documents");
ABSL_FLAG(std::string, weights, "", "checkpoint to begin with");
ABSL_FLAG(std::string, save, "", "checkpoint to write");
ABSL_FLAG(std::string, verify, "", "case to check the model with");
ABSL_FLAG(std::string, write_data, "", "documents to write");
ABSL_FLAG(std::string, torch, "", "LibTorch's folder");
ABSL_FLAG(int64_t, parent_pid, 0, "die with this process");
ABSL_FLAG(bool, list_backends, false, "list the backends");
ABSL_FLAG(bool, json, false, "list them as JSON");

namespace attnfleet::trainer {
namespace {

// Reads the flags one after the other and keeps the first error.
class Reader {
 public:
  int64_t Integer(const char* name, const absl::Flag<int64_t>& flag, int64_t least, int64_t most) {
    const int64_t value = absl::GetFlag(flag);
    if (value < least || value > most) {
      Fail(absl::StrCat(name, ": ", value, " is out of range; ", least, " to ", most, " is possible"));
    }
    return value;
  }

  double Probability(const char* name, const absl::Flag<double>& flag) {
    const double value = absl::GetFlag(flag);
    if (!(value >= 0 && value < 1)) {  // true for NaN
      Fail(absl::StrCat(name, ": ", value, " is no dropout probability; give 0 <= p < 1"));
    }
    return value;
  }

  double Part(const char* name, const absl::Flag<std::string>& flag) {
    const absl::StatusOr<double> part = ParsePart(absl::GetFlag(flag));
    if (!part.ok()) Fail(absl::StrCat(name, ": ", std::string(part.status().message())));
    return part.value_or(0);
  }

  template <typename Value>
  Value Choice(const char* name, const absl::Flag<std::string>& flag,
               const std::vector<std::pair<std::string, Value>>& choices) {
    const std::string given = absl::GetFlag(flag);
    std::vector<std::string> names;
    for (const auto& [choice, value] : choices) {
      if (choice == given) return value;
      names.push_back(choice);
    }
    Fail(absl::StrCat(name, ": ", UnknownName("value", given, names)));
    return choices.front().second;
  }

  void Fail(const std::string& text) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(text);
  }

  const absl::Status& status() const { return status_; }

 private:
  absl::Status status_;
};

ModelConfig Tiny() {
  ModelConfig model;
  model.hidden_size = 128;
  model.layers = 2;
  model.heads = 2;
  model.intermediate_size = 512;
  model.vocabulary = 1000;
  model.coordinate_size = 21;  // 4 * 21 + 2 * 22 = 128
  model.shape_size = 22;
  return model;
}

ModelConfig Large() {
  ModelConfig model;
  model.hidden_size = 1024;
  model.layers = 24;
  model.heads = 16;
  model.intermediate_size = 4096;
  model.coordinate_size = 171;  // 4 * 171 + 2 * 170 = 1024, as in layoutlmv3-large
  model.shape_size = 170;
  return model;
}

}  // namespace

absl::StatusOr<Config> ParseCommandLine(int argc, const char* const* argv) {
  const absl::StatusOr<CommandLine> line = ParseFlags(argc, argv);
  if (!line.ok()) return line.status();
  Config config;
  config.help = line->help;
  config.version = line->version;
  if (config.help || config.version) return config;
  if (!line->positional.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", line->positional[0], "\" is no flag; flags look like --batch=8 (see --help)"));
  }

  Reader read;
  config.backend = absl::GetFlag(FLAGS_backend);
  config.batch = read.Integer("--batch", FLAGS_batch, 1, 65536);
  config.sequence_length = read.Integer("--sequence-length", FLAGS_sequence_length, 1, 8192);
  config.model =
      read.Choice<ModelConfig>("--model", FLAGS_model, {{"tiny", Tiny()}, {"base", ModelConfig()}, {"large", Large()}});
  config.model.labels = read.Integer("--labels", FLAGS_labels, 2, 1000);
  config.model.relative_bias = absl::GetFlag(FLAGS_relative_bias);
  config.model.spatial_bias = absl::GetFlag(FLAGS_spatial_bias);
  config.model.hidden_dropout = read.Probability("--hidden-dropout", FLAGS_hidden_dropout);
  config.model.attention_dropout = read.Probability("--attention-dropout", FLAGS_attention_dropout);
  // The published benchmark's rule: position ids run from 2 to S + 1.
  config.model.max_positions = std::max(config.model.max_positions, config.sequence_length + 2);
  config.device = read.Choice<Device>("--device", FLAGS_device,
                                      {{"auto", Device::kAuto}, {"cpu", Device::kCpu}, {"cuda", Device::kCuda}});
  config.warmup_steps = static_cast<int>(read.Integer("--warmup", FLAGS_warmup, 0, 1'000'000));
  config.timed_steps = static_cast<int>(read.Integer("--steps", FLAGS_steps, 1, 1'000'000));
  config.precision = read.Choice<Precision>("--precision", FLAGS_precision,
                                            {{"auto", Precision::kAuto},
                                             {"fp32", Precision::kFp32},
                                             {"tf32", Precision::kTf32},
                                             {"bf16-mixed", Precision::kBf16Mixed},
                                             {"bf16", Precision::kBf16}});
  config.optimizer = read.Choice<Optimizer>("--optimizer", FLAGS_optimizer,
                                            {{"adam", Optimizer::kAdam}, {"adamw", Optimizer::kAdamW}});
  config.step = read.Choice<StepKind>("--step", FLAGS_step,
                                      {{StepName(StepKind::kReference), StepKind::kReference},
                                       {StepName(StepKind::kFused), StepKind::kFused},
                                       {StepName(StepKind::kFusedBf16Stream), StepKind::kFusedBf16Stream}});
  config.learning_rate = absl::GetFlag(FLAGS_learning_rate);
  if (!(config.learning_rate > 0 && config.learning_rate <= 1)) {
    read.Fail(absl::StrCat("--learning-rate: ", config.learning_rate, " is out of range; give 0 < rate <= 1"));
  }
  config.data_loader_threads =
      static_cast<int>(read.Integer("--data-loader-threads", FLAGS_data_loader_threads, 0, 256));
  config.seed = absl::GetFlag(FLAGS_seed);
  config.boxes = read.Choice<Boxes>(
      "--boxes", FLAGS_boxes, {{"document", Boxes::kDocument}, {"random", Boxes::kRandom}, {"unit", Boxes::kUnit}});
  config.model.image = absl::GetFlag(FLAGS_image);
  config.model.train_bias_tables = absl::GetFlag(FLAGS_train_bias_tables);
  config.model.dropout_placement = read.Choice<DropoutPlacement>(
      "--dropout-placement", FLAGS_dropout_placement,
      {{"probabilities", DropoutPlacement::kProbabilities}, {"output", DropoutPlacement::kOutput}});
  config.warmup_limit =
      absl::GetFlag(FLAGS_warmup_limit) == -1
          ? config.warmup_steps
          : static_cast<int>(read.Integer("--warmup-limit", FLAGS_warmup_limit, config.warmup_steps, 1'000'000));
  config.ci_width = read.Part("--ci-width", FLAGS_ci_width);
  config.check = absl::GetFlag(FLAGS_check);
  config.data = absl::GetFlag(FLAGS_data);
  config.weights = absl::GetFlag(FLAGS_weights);
  config.save = absl::GetFlag(FLAGS_save);
  config.verify = absl::GetFlag(FLAGS_verify);
  config.write_data = absl::GetFlag(FLAGS_write_data);
  config.torch = absl::GetFlag(FLAGS_torch);
  config.parent_pid = static_cast<pid_t>(read.Integer("--parent-pid", FLAGS_parent_pid, 0, 1 << 22));
  config.list_backends = absl::GetFlag(FLAGS_list_backends);
  config.json = absl::GetFlag(FLAGS_json);
  if (config.json && !config.list_backends)
    read.Fail("--json: goes with --list-backends alone; a run always writes JSON");
  if (!config.verify.empty() && config.step == StepKind::kFusedBf16Stream)
    read.Fail("--verify: checks in fp32, so not --step=fused-bf16-stream; give --step=fused or reference");
  if (!config.write_data.empty() && !config.data.empty())
    read.Fail("--write-data: writes synthetic documents; --data names others");
  if (!read.status().ok()) return read.status();
  return config;
}

const char* StepName(StepKind step) {
  switch (step) {
    case StepKind::kFused:
      return "fused";
    case StepKind::kFusedBf16Stream:
      return "fused-bf16-stream";
    case StepKind::kReference:
      break;
  }
  return "reference";
}

}  // namespace attnfleet::trainer
