#ifndef ATTNFLEET_WORKER_TRAINER_CONFIG_H_
#define ATTNFLEET_WORKER_TRAINER_CONFIG_H_

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "worker/trainer/model_config.h"

namespace attnfleet::trainer {

enum class Device { kAuto, kCpu, kCuda };
enum class Precision { kAuto, kFp32, kTf32, kBf16Mixed, kBf16 };
enum class Optimizer { kAdam, kAdamW };
enum class StepKind { kReference, kFused, kFusedBf16Stream };
enum class Boxes { kUnit, kRandom, kDocument };

// One run, as its flags describe it. The defaults are the model that people train.
struct Config {
  std::string backend;
  int64_t batch = 0;
  int64_t sequence_length = 0;
  ModelConfig model;  // built from --model, --labels and the bias and dropout flags
  Device device = Device::kAuto;
  int warmup_steps = 0;
  int warmup_limit = 0;  // >= warmup_steps: warm-up goes on until the speed is stable, or so many steps were done
  int timed_steps = 0;   // with ci_width the limit
  double ci_width = 0;   // stop once the 95 % confidence interval of it/s is no wider than this part of it; 0: never
  bool check = false;    // compare with eager in fp64 after the timed steps
  Precision precision = Precision::kAuto;
  Optimizer optimizer = Optimizer::kAdamW;
  StepKind step = StepKind::kReference;  // whose operations: LibTorch's one by one, or the fused ones of step/
  double learning_rate = 0;
  int data_loader_threads = 0;  // 0: batches are made between the steps
  uint64_t seed = 0;
  Boxes boxes = Boxes::kDocument;
  std::string data;        // JSON Lines of documents; empty: synthetic ones
  std::string weights;     // safetensors; empty: random
  std::string save;        // write the trained weights there; empty: nowhere
  std::string verify;      // compare the model with this file's case, instead of training
  std::string write_data;  // write the synthetic batches there, instead of training

  std::string torch;     // --torch; empty: look for LibTorch
  pid_t parent_pid = 0;  // not 0: die with that process
  bool list_backends = false;
  bool json = false;
  bool help = false;
  bool version = false;
};

// Reads and checks the command line. INVALID_ARGUMENT is one line that names the flag, what it was given and what would
// be right. Whether the backend exists is not known here: only the program with LibTorch knows its backends.
absl::StatusOr<Config> ParseCommandLine(int argc, const char* const* argv);

// As --step names it.
const char* StepName(StepKind step);

// The text of --help.
std::string UsageText();

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_CONFIG_H_
