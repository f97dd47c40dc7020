#ifndef ATTNFLEET_WORKER_TRAINER_COMMAND_H_
#define ATTNFLEET_WORKER_TRAINER_COMMAND_H_

// The command line of a trainer. No string of a StartRun reaches it, but for a backend that the trainer itself listed
// and plain names of files that are in the worker's folder; no shell is involved.

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "attnfleet/v1/trainer.pb.h"
#include "attnfleet/v1/worker.pb.h"

namespace attnfleet::worker {

// What is the same for every run of this worker.
struct TrainerProgram {
  std::string path;
  std::string torch;     // passed on as --torch=DIR; empty: the trainer looks for LibTorch itself
  pid_t parent_pid = 0;  // passed on as --parent-pid: the trainer dies with this process
  std::string files;     // folder of data and weights that runs may name; empty: none
};

struct TrainerCommand {
  std::vector<std::string> argv;
  std::vector<std::string> environment;  // NAME=VALUE, set over the worker's own
};

// INVALID_ARGUMENT names the field that this worker cannot turn into a command.
absl::StatusOr<TrainerCommand> MakeRunCommand(const TrainerProgram& program, const v1::StartRun& start,
                                              const v1::Slot& slot, const v1::TrainerCapabilities& capabilities);

// Asks the trainer for its TrainerCapabilities.
TrainerCommand MakeProbeCommand(const TrainerProgram& program);

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_TRAINER_COMMAND_H_
