#ifndef ATTNFLEET_WORKER_TRAINER_VERIFY_H_
#define ATTNFLEET_WORKER_TRAINER_VERIFY_H_

#include <map>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/trainer/attention/contract.h"
#include "worker/trainer/checkpoint.h"
#include "worker/trainer/config.h"
#include "worker/trainer/model.h"

namespace attnfleet::trainer {

// What fp32 rounding may leave: twice the largest measured in tests/golden (2.5e-7 for eager, 2.4e-6 for the others).
inline constexpr double kVerifyBound = 5e-6;

// How far a model is from a case: largest difference over largest expected value, of each tensor.
struct CaseError {
  double logits = 0;
  double loss = 0;
  double gradients = 0;         // of the worst parameter
  std::string worst_parameter;  // whose
  int compared_gradients = 0;

  bool Within(double bound) const { return logits <= bound && loss <= bound && gradients <= bound; }  // false for NaN
};

// One case: a configuration, weights, an input, and what the reference model makes of it. tests/golden/README.md
// describes the file.
class ModelCase {
 public:
  // The error is one line that says what is wrong with the file, all wrong tensors listed.
  static absl::StatusOr<ModelCase> Read(const std::string& path);
  static absl::StatusOr<ModelCase> Parse(const std::string& name, SafetensorsFile file);

  const ModelConfig& config() const { return config_; }
  const Batch& input() const { return input_; }
  // With the case's weights.
  Model MakeModel(at::Device device) const;
  // One pass of the step forth and back, fp32. The error is an input that the model cannot take, or a backend that
  // refuses.
  absl::StatusOr<CaseError> Compare(Model& model, const Backend& backend, StepKind step = StepKind::kReference) const;

 private:
  explicit ModelCase(SafetensorsFile file) : file_(std::move(file)) {}
  CaseError Measure(Model& model, const Backend& backend, StepKind step) const;

  SafetensorsFile file_;
  ModelConfig config_;
  NamedEntries weights_;  // into file_
  Batch input_;
  at::Tensor logits_, loss_;
  std::map<std::string, at::Tensor> gradients_;  // by parameter
};

// The errors as text for people, several lines.
std::string Report(const std::string& path, const ModelConfig& config, const CaseError& error);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_VERIFY_H_
