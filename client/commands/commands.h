#ifndef ATTNFLEET_CLIENT_COMMANDS_COMMANDS_H_
#define ATTNFLEET_CLIENT_COMMANDS_COMMANDS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/command_line.h"
#include "proto/support/stop_signals.h"

namespace attnfleet::client {

// Each in the file of its name.
extern const CommandInfo kRunCommand;
extern const CommandInfo kSubmitCommand;
extern const CommandInfo kWatchCommand;
extern const CommandInfo kListCommand;
extern const CommandInfo kResultsCommand;
extern const CommandInfo kCancelCommand;
extern const CommandInfo kPauseCommand;
extern const CommandInfo kResumeCommand;  // in pause.cc
extern const CommandInfo kExplainCommand;
extern const CommandInfo kWorkersCommand;
extern const CommandInfo kBackendsCommand;

// The whole program behind main: `arguments` without the program's name. Returns the exit code; an error is one message
// on standard error.
int RunCommandLine(const std::vector<std::string>& arguments, StopSignals& signals);

// The exit code that an error ends the program with.
int ExitCodeOf(const absl::Status& error);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_COMMANDS_COMMANDS_H_
