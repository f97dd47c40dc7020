#ifndef ATTNFLEET_WORKER_TRAINER_TORCH_DIRECTORY_H_
#define ATTNFLEET_WORKER_TRAINER_TORCH_DIRECTORY_H_

#include <string>

#include "absl/status/statusor.h"

namespace attnfleet::trainer {

inline constexpr char kNeededTorch[] = "2.11";

struct TorchDirectory {
  std::string path;     // holds lib/libtorch_cpu.so
  std::string version;  // "2.11.0+cu130"
  std::string source;   // who named it: "--torch", "ATTNFLEET_TORCH", "the build tree", "python3"
};

// Looks for LibTorch: `flag` (--torch), the environment variable ATTNFLEET_TORCH, the file "torch-directory" in
// `program_directory`, the host's python3; the first of them that says anything decides. FAILED_PRECONDITION names the
// folder, the version found there and the one needed; NOT_FOUND says what was tried.
absl::StatusOr<TorchDirectory> FindTorch(const std::string& flag, const std::string& program_directory);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_TORCH_DIRECTORY_H_
