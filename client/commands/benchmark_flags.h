#ifndef ATTNFLEET_CLIENT_COMMANDS_BENCHMARK_FLAGS_H_
#define ATTNFLEET_CLIENT_COMMANDS_BENCHMARK_FLAGS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "attnfleet/v1/benchmark.pb.h"
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

  // Reads and completes it; which backends there are is not known yet.
  absl::StatusOr<v1::BenchmarkSpec> Read() const;
};

// Prints the jobs and the spec as it would run. Returns the exit code.
absl::StatusOr<int> ShowDryRun(const v1::BenchmarkSpec& spec, const OutputFlags& output);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_COMMANDS_BENCHMARK_FLAGS_H_
