#ifndef ATTNFLEET_PROTO_SUPPORT_FLAGS_H_
#define ATTNFLEET_PROTO_SUPPORT_FLAGS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace attnfleet {

struct CommandLine {
  bool help = false;     // --help was given
  bool version = false;  // --version was given
  std::vector<std::string> positional;
};

// Sets the program's ABSL_FLAGs from --name=value, --name value, --switch and --noswitch; "--" ends the flags, and
// --state-dir sets the flag state_dir.
// INVALID_ARGUMENT is one line that names the flag, and the nearest that exists if it is unknown. This instead of
// absl::ParseCommandLine, which adds a dozen flags of its own and ends the process as it likes.
absl::StatusOr<CommandLine> ParseFlags(int argc, const char* const* argv);

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_SUPPORT_FLAGS_H_
