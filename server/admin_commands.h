#ifndef ATTNFLEET_SERVER_ADMIN_COMMANDS_H_
#define ATTNFLEET_SERVER_ADMIN_COMMANDS_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/job_store.h"

namespace attnfleet::server {

// How a command gets at the store: for reading, beside a server that may be running; for writing, instead of one
// (UNAVAILABLE names the one that runs).
struct StoreAccess {
  std::function<absl::StatusOr<std::unique_ptr<JobStore>>()> read;
  std::function<absl::StatusOr<std::unique_ptr<JobStore>>()> write;
};

// Carries out `check`, `backup FILE` or `restore FILE` (words[0] and what follows it) and prints what came of it.
// Returns the exit code. INVALID_ARGUMENT: no such command, or wrong arguments.
absl::StatusOr<int> RunAdminCommand(const std::vector<std::string>& words, const StoreAccess& access);

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_ADMIN_COMMANDS_H_
