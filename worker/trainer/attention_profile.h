#ifndef ATTNFLEET_WORKER_TRAINER_ATTENTION_PROFILE_H_
#define ATTNFLEET_WORKER_TRAINER_ATTENTION_PROFILE_H_

#include <functional>
#include <string>
#include <vector>

#include "worker/trainer/attention/contract.h"

namespace attnfleet::trainer {

struct AttentionProfile {
  std::vector<std::string> kernels;  // that ran, longest first, at most eight; on the CPU the operators
  std::string unknown;               // why there are none
};

// Calls `pass` once under LibTorch's profiler, with a backend that does what `backend` does and marks where it is. The
// pass is to go forward and backward with it and to wait for the device. Never throws: what goes wrong is `unknown`.
AttentionProfile ProfileAttention(const Backend& backend, bool cuda, const std::function<void(const Backend&)>& pass);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_ATTENTION_PROFILE_H_
