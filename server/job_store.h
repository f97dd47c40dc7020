#ifndef ATTNFLEET_SERVER_JOB_STORE_H_
#define ATTNFLEET_SERVER_JOB_STORE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::server {

// What changed in one batch of events, to be stored together or not at all. The pointers need to live only for the
// call.
struct StoreChanges {
  struct ChangedBenchmark {
    const v1::Benchmark* benchmark;  // without its jobs: they follow from the spec (ExpandJobs), their runs are rows
    std::string request_id;          // of the submit; may be empty
  };
  std::vector<ChangedBenchmark> benchmarks;
  std::vector<const v1::Run*> runs;  // a run without a row has never been assigned
};

struct StoredBenchmark {
  v1::Benchmark benchmark;  // complete, with jobs and runs
  std::string request_id;
};

// Where benchmarks outlive the coordinator. Used by one thread.
class JobStore {
 public:
  virtual ~JobStore() = default;

  // Everything, oldest first. DATA_LOSS names what is damaged.
  virtual absl::StatusOr<std::vector<StoredBenchmark>> Load() = 0;

  // On OK the changes survive a crash of the process; on any error none of them was made, and the call may be repeated.
  virtual absl::Status Save(const StoreChanges& changes) = 0;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_JOB_STORE_H_
