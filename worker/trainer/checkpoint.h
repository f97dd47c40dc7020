#ifndef ATTNFLEET_WORKER_TRAINER_CHECKPOINT_H_
#define ATTNFLEET_WORKER_TRAINER_CHECKPOINT_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/trainer/model.h"
#include "worker/trainer/safetensors.h"

namespace attnfleet::trainer {

// A copy on the CPU, in the file's type.
at::Tensor ToTensor(const SafetensorsFile::Entry& entry);

struct TensorShape {
  std::vector<int64_t> sizes;
  bool integer = false;
};
using NamedShapes = std::map<std::string, TensorShape>;
using NamedEntries = std::map<std::string, SafetensorsFile::Entry>;

// Under the names that VisitParameters gives.
NamedShapes ParameterShapes(const ModelConfig& config);

// Whether the tensors are those and no others. If not, one line lists what is missing, surplus and unlike; `source` is
// whose they are.
absl::Status MatchTensors(const std::string& source, const NamedShapes& expected, const NamedEntries& entries);

// Copies the parameters that are there, converting F16 and BF16, into tensors of the same shape.
void CopyParameters(const NamedEntries& entries, Model& model);

// Fills the model with a checkpoint's weights; names with or without "layoutlmv3.". Parts that the model has switched
// off (image, biases) are left out. A checkpoint without any head leaves the model's as it is, and a sentence to say so
// comes back; else an empty one. An error leaves the model untouched.
absl::StatusOr<std::string> LoadCheckpoint(const std::string& path, Model& model);

// Why nothing could be saved there, before the work is done.
absl::Status CheckSavePath(const std::string& path);

// Writes the weights under Hugging Face's names and in their own type; whole or not at all.
absl::Status SaveCheckpoint(const std::string& path, const Model& model);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_CHECKPOINT_H_
