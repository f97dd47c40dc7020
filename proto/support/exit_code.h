#ifndef ATTNFLEET_PROTO_SUPPORT_EXIT_CODE_H_
#define ATTNFLEET_PROTO_SUPPORT_EXIT_CODE_H_

namespace attnfleet {

// What every program of the project exits with; each --help lists the ones that it uses.
enum ExitCode : int {
  kExitOk = 0,
  kExitFailed = 1,        // it ran, and something it was asked for failed (a run without a result, a lost store)
  kExitUsage = 2,         // flags, a spec file, an address: nothing was started
  kExitUnavailable = 3,   // the server cannot be reached, the port or the state directory is taken
  kExitRefused = 4,       // the server does not know who asks, or does not let them
  kExitInterrupted = 130  // Ctrl-C or SIGTERM, after stopping cleanly
};

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_SUPPORT_EXIT_CODE_H_
