#ifndef ATTNFLEET_SERVER_OPEN_RUNS_H_
#define ATTNFLEET_SERVER_OPEN_RUNS_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::server {

// Bounds the runs of benchmarks that have not ended, in all and for each submitter, so that the coordinator's memory
// has a bound. Not thread-safe.
class OpenRuns {
 public:
  struct Limits {
    uint64_t all = 4'000'000;
    uint64_t submitter = 1'000'000;
  };

  explicit OpenRuns(Limits limits) : limits_(limits) {}

  // RESOURCE_EXHAUSTED, which says what to wait for, if there is no room for a benchmark of so many runs.
  absl::Status CheckRoom(const std::string& submitter, uint64_t runs) const;

  // Counts a benchmark as long as it has not ended. May be told of any change of it, more than once; one that is placed
  // on every node may come to have more runs than there was room for.
  void Update(const v1::Benchmark& benchmark);

 private:
  struct Open {
    std::string submitter;
    uint64_t runs = 0;
  };
  const Limits limits_;
  uint64_t all_ = 0;
  std::map<std::string, uint64_t> by_submitter_;
  std::map<uint64_t, Open> benchmarks_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_OPEN_RUNS_H_
