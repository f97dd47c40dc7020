#include "client/local_files.h"

#include <filesystem>

#include "absl/strings/str_cat.h"

namespace attnfleet::client {
namespace {

namespace fs = std::filesystem;

// The file's absolute path with all links resolved: so two ways to one folder are one, and a worker follows no link to
// a file (a checkpoint in Hugging Face's cache is one).
absl::StatusOr<fs::path> Find(const std::string& flag, const std::string& file) {
  std::error_code error;
  if (!fs::is_regular_file(file, error)) {
    return absl::InvalidArgumentError(absl::StrCat(flag, ": there is no file ", file));
  }
  fs::path path = fs::canonical(file, error);
  if (error) return absl::InvalidArgumentError(absl::StrCat(flag, ": ", file, ": ", error.message()));
  return path;
}

absl::Status OnlyLocal(const std::string& flag) {
  return absl::InvalidArgumentError(absl::StrCat(flag, ": a file of this machine, for a run without --server; give --",
                                                 flag.substr(2), "-file=NAME, the name of a file in the worker's ",
                                                 "--files folder"));
}

absl::Status OnlyRemote(const std::string& flag, const std::string& name) {
  return absl::InvalidArgumentError(absl::StrCat("--", flag, "-file: \"", name,
                                                 "\" is a file of a worker on a server; ", "without --server give --",
                                                 flag, "=FILE"));
}

}  // namespace

std::vector<Flag> LocalFiles::Flags() {
  return {
      {"data", "FILE", "documents of this machine, without --server: JSON Lines of {\"ids\", \"boxes\", \"labels\"}",
       SetString(data_)},
      {"weights", "FILE", "checkpoint of this machine to begin with, without --server (safetensors)",
       SetString(weights_)},
  };
}

absl::StatusOr<std::string> LocalFiles::Apply(bool local, v1::BenchmarkSpec& spec) const {
  v1::TrainingSettings& training = *spec.mutable_training();
  if (!local) {
    if (!data_.empty()) return OnlyLocal("--data");
    if (!weights_.empty()) return OnlyLocal("--weights");
    return "";
  }
  if (data_.empty() && !training.data_file().empty()) return OnlyRemote("data", training.data_file());
  if (weights_.empty() && !training.weights_file().empty()) return OnlyRemote("weights", training.weights_file());
  std::string folder;
  if (!data_.empty()) {
    const absl::StatusOr<fs::path> path = Find("--data", data_);
    if (!path.ok()) return path.status();
    training.set_data_file(path->filename());
    folder = path->parent_path();
  }
  if (!weights_.empty()) {
    const absl::StatusOr<fs::path> path = Find("--weights", weights_);
    if (!path.ok()) return path.status();
    if (!folder.empty() && path->parent_path() != folder) {
      return absl::InvalidArgumentError(absl::StrCat("--weights: ", weights_, " is not in the folder of --data, ",
                                                     folder, "; a worker reads one folder, so put both into one"));
    }
    training.set_weights_file(path->filename());
    folder = path->parent_path();
  }
  return folder;
}

}  // namespace attnfleet::client
