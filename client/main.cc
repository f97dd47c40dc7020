// attnfleet: the command line.

#include <cstdlib>
#include <string>
#include <vector>

#include "client/commands/commands.h"
#include "proto/support/log.h"
#include "proto/support/stop_signals.h"

int main(int argc, char** argv) {
  // gRPC's own log lines are no help to a user; the variable brings them back.
  setenv("GRPC_VERBOSITY", "NONE", 0);
  attnfleet::StopSignals signals;  // before any thread
  attnfleet::InitLog("attnfleet", attnfleet::Severity::kWarning);
  return attnfleet::client::RunCommandLine(std::vector<std::string>(argv + 1, argv + argc), signals);
}
