#ifndef ATTNFLEET_PROTO_SUPPORT_PROCESS_H_
#define ATTNFLEET_PROTO_SUPPORT_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attnfleet {

// Asks the kernel to send `signal` to this process when its parent dies, and fails if the parent is not `parent` any
// more. Trap: the kernel means the parent's *thread* that spawned it, so spawn from a thread that lives long.
absl::Status DieWithParent(pid_t parent, int signal);

// The folder that this program's executable lies in.
absl::StatusOr<std::string> ExecutableDirectory();

// File descriptors of the child's standard streams; -1 = /dev/null.
struct ChildStreams {
  int input = -1;
  int output = -1;
  int error = -1;
};

// Starts a program (argv[0] is its path) with posix_spawn, in a process group of its own if asked, with signals
// unblocked and at their defaults and no other descriptor than the three. `environment` holds NAME=VALUE entries that
// are set over this process's own. Never plain fork(): gRPC's threads would not survive it.
absl::StatusOr<pid_t> Spawn(const std::vector<std::string>& argv, const ChildStreams& streams, bool own_group,
                            const std::vector<std::string>& environment = {});

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_SUPPORT_PROCESS_H_
