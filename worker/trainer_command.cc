#include "worker/trainer_command.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/request_id.h"
#include "proto/spec.h"
#include "proto/suggest.h"

namespace attnfleet::worker {
namespace {

// Digits enough to read back the same double.
std::string Exact(double value) { return absl::StrFormat("%.17g", value); }

const char* Bool(bool value) { return value ? "true" : "false"; }

// The name of an enum's value as the trainer's flags have it; empty for one that this build does not know.
template <typename Enum>
absl::Status CheckKnown(const char* field, bool valid, Enum value) {
  if (valid && value != 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": this worker does not know value ", static_cast<int>(value)));
}

absl::Status Check(const v1::StartRun& start, const v1::TrainerCapabilities& capabilities) {
  std::vector<std::string> backends;
  for (const v1::Backend& backend : capabilities.backends()) backends.push_back(backend.name());
  if (std::find(backends.begin(), backends.end(), start.backend()) == backends.end()) {
    return absl::InvalidArgumentError(UnknownName("backend", start.backend(), backends));
  }
  if (start.shape().batch() < 1 || start.shape().sequence_length() < 1) {
    return absl::InvalidArgumentError(absl::StrCat("shape: ", FormatShape(start.shape()), " has nothing to train on"));
  }
  const v1::TrainingSettings& training = start.training();
  for (const absl::Status& status : {
           CheckKnown("training.model_size", v1::ModelSize_IsValid(training.model_size()), training.model_size()),
           CheckKnown("training.precision", v1::Precision_IsValid(training.precision()), training.precision()),
           CheckKnown("training.optimizer", v1::Optimizer_IsValid(training.optimizer()), training.optimizer()),
           CheckKnown("training.boxes", v1::BoxLayout_IsValid(training.boxes()), training.boxes()),
       }) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// The path of a file that a run names: only of one that is in the worker's folder.
absl::StatusOr<std::string> FindFile(const char* field, const std::string& folder, const std::string& name) {
  if (folder.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": this worker has no files; start it with --files=DIR, \"", name, "\" in DIR"));
  }
  if (!IsPlainFileName(name)) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": \"", name, "\" is no plain file name"));
  }
  const std::string path = absl::StrCat(folder, "/", name);
  std::error_code error;
  // Not followed: a link may lead out of the folder.
  const std::filesystem::file_status status = std::filesystem::symlink_status(path, error);
  if (std::filesystem::is_regular_file(status)) return path;
  if (std::filesystem::is_symlink(status)) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": \"", name, "\" in this worker's ", folder,
                                                   " is a symbolic link; put the file itself there"));
  }
  return absl::InvalidArgumentError(absl::StrCat(field, ": there is no file \"", name, "\" in this worker's ", folder));
}

absl::Status AddFiles(const std::string& folder, const v1::TrainingSettings& training, std::vector<std::string>& argv) {
  if (!training.data_file().empty()) {
    const absl::StatusOr<std::string> path = FindFile("training.data_file", folder, training.data_file());
    if (!path.ok()) return path.status();
    argv.push_back(absl::StrCat("--data=", *path));
  }
  if (!training.weights_file().empty()) {
    const absl::StatusOr<std::string> path = FindFile("training.weights_file", folder, training.weights_file());
    if (!path.ok()) return path.status();
    argv.push_back(absl::StrCat("--weights=", *path));
  }
  return absl::OkStatus();
}

std::vector<std::string> CommonArguments(const TrainerProgram& program) {
  std::vector<std::string> argv = {program.path};
  if (!program.torch.empty()) argv.push_back(absl::StrCat("--torch=", program.torch));
  argv.push_back(absl::StrCat("--parent-pid=", program.parent_pid));
  return argv;
}

// Settings that a coordinator of version 0.1.0 does not send: the trainer's defaults are then right.
void AddNewerSettings(const v1::TrainingSettings& training, std::vector<std::string>& argv) {
  if (training.has_image()) argv.push_back(absl::StrCat("--image=", Bool(training.image())));
  if (training.has_train_bias_tables()) {
    argv.push_back(absl::StrCat("--train-bias-tables=", Bool(training.train_bias_tables())));
  }
  if (training.attention_dropout_placement() != v1::DROPOUT_PLACEMENT_UNSPECIFIED) {
    argv.push_back(absl::StrCat("--dropout-placement=", DropoutPlacementName(training.attention_dropout_placement())));
  }
  if (training.has_warmup_limit_steps()) {
    argv.push_back(absl::StrCat("--warmup-limit=", training.warmup_limit_steps()));
  }
  if (training.has_ci_width()) argv.push_back(absl::StrCat("--ci-width=", Exact(training.ci_width())));
  if (training.step() != v1::TRAINING_STEP_UNSPECIFIED) {
    argv.push_back(absl::StrCat("--step=", TrainingStepName(training.step())));
  }
  if (training.has_numerical_check()) argv.push_back(absl::StrCat("--check=", Bool(training.numerical_check())));
}

}  // namespace

absl::StatusOr<TrainerCommand> MakeRunCommand(const TrainerProgram& program, const v1::StartRun& start,
                                              const v1::Slot& slot, const v1::TrainerCapabilities& capabilities) {
  if (absl::Status status = Check(start, capabilities); !status.ok()) return status;
  const v1::TrainingSettings& training = start.training();
  const bool cuda = slot.device_kind() == v1::DEVICE_KIND_CUDA;
  TrainerCommand command;
  command.argv = CommonArguments(program);
  for (std::string& argument : std::vector<std::string>{
           absl::StrCat("--backend=", start.backend()),
           absl::StrCat("--batch=", start.shape().batch()),
           absl::StrCat("--sequence-length=", start.shape().sequence_length()),
           absl::StrCat("--model=", ModelSizeName(training.model_size())),
           absl::StrCat("--device=", cuda ? "cuda" : "cpu"),
           absl::StrCat("--warmup=", training.warmup_steps()),
           absl::StrCat("--steps=", training.timed_steps()),
           absl::StrCat("--labels=", training.num_labels()),
           absl::StrCat("--relative-bias=", Bool(training.relative_attention_bias())),
           absl::StrCat("--spatial-bias=", Bool(training.spatial_attention_bias())),
           absl::StrCat("--hidden-dropout=", Exact(training.hidden_dropout())),
           absl::StrCat("--attention-dropout=", Exact(training.attention_dropout())),
           absl::StrCat("--precision=", PrecisionName(training.precision())),
           absl::StrCat("--optimizer=", OptimizerName(training.optimizer())),
           absl::StrCat("--learning-rate=", Exact(training.learning_rate())),
           absl::StrCat("--data-loader-threads=", training.data_loader_threads()),
           absl::StrCat("--seed=", training.seed()),
           absl::StrCat("--boxes=", BoxLayoutName(training.boxes())),
       }) {
    command.argv.push_back(std::move(argument));
  }
  AddNewerSettings(training, command.argv);
  if (absl::Status status = AddFiles(program.files, training, command.argv); !status.ok()) return status;
  // Always set, so that none of the worker's own environment is taken for it.
  command.environment = {
      absl::StrCat(kRequestIdVariable, "=", IsRequestId(start.request_id()) ? start.request_id() : std::string())};
  if (cuda) {
    command.environment.push_back(absl::StrCat("CUDA_VISIBLE_DEVICES=", slot.id()));
    command.environment.emplace_back("CUDA_DEVICE_ORDER=PCI_BUS_ID");
  }
  return command;
}

TrainerCommand MakeProbeCommand(const TrainerProgram& program) {
  TrainerCommand command;
  command.argv = CommonArguments(program);
  command.argv.insert(command.argv.end(), {"--list-backends", "--json"});
  return command;
}

}  // namespace attnfleet::worker
