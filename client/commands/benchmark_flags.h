#ifndef ATTNFLEET_CLIENT_COMMANDS_BENCHMARK_FLAGS_H_
#define ATTNFLEET_CLIENT_COMMANDS_BENCHMARK_FLAGS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "attnfleet/v1/benchmark.pb.h"
#include "client/connection.h"
#include "client/server.h"
#include "client/show.h"
#include "client/spec_flags.h"

namespace attnfleet::client {

// The benchmark that `run` and `submit` are given.
struct BenchmarkFlags {
  SpecFlags spec;
  bool dry_run = false;
  std::string request_id = RandomRequestId();  // of the submit

  std::vector<Flag> Flags();

  // Reads and completes it; which backends there are is not known here.
  absl::StatusOr<v1::BenchmarkSpec> Read() const;

  // Checks the backends against those that a server's workers offer; where none is connected, says on standard error
  // that the benchmark waits for one.
  absl::Status CheckBackends(Server& server, const v1::BenchmarkSpec& checked) const;

  // An error if one of them is none of those; without any, everything may be one.
  absl::Status CheckBackends(const v1::ListBackendsResponse& known, const v1::BenchmarkSpec& checked) const;

  // Says on standard error what CheckStep finds, and whom placement every leaves out. Neither is an error, for a fleet
  // may yet become another: that is CANCELLED alone, if a stop signal came.
  absl::Status WarnOfFleet(Server& server, const v1::BenchmarkSpec& checked) const;

  // Prints the jobs and the spec as it would run, and returns the exit code.
  absl::StatusOr<int> DryRun(const v1::BenchmarkSpec& checked, const ConnectionFlags& connection,
                             const OutputFlags& output, StopSignals& signals) const;
};

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_COMMANDS_BENCHMARK_FLAGS_H_
