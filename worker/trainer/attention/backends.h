#ifndef ATTNFLEET_WORKER_TRAINER_ATTENTION_BACKENDS_H_
#define ATTNFLEET_WORKER_TRAINER_ATTENTION_BACKENDS_H_

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/trainer/attention/contract.h"

namespace attnfleet::trainer {

// Every backend, in the order that they are listed.
const std::vector<const Backend*>& Backends();

// INVALID_ARGUMENT names the nearest name and all that exist.
absl::StatusOr<const Backend*> FindBackend(std::string_view name);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_ATTENTION_BACKENDS_H_
