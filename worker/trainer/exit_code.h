#ifndef ATTNFLEET_WORKER_TRAINER_EXIT_CODE_H_
#define ATTNFLEET_WORKER_TRAINER_EXIT_CODE_H_

namespace attnfleet::trainer {

// What the trainer exits with; --help lists them.
enum ExitCode : int {
  kExitResult = 0,   // a result line was written: measured, out of memory, unsupported or cancelled
  kExitFailed = 1,   // anything else
  kExitUsage = 2,    // a wrong flag; nothing was started
  kExitNoTorch = 3,  // no usable LibTorch
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_EXIT_CODE_H_
