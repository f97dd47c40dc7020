#ifndef ATTNFLEET_SERVER_STORED_CHECK_H_
#define ATTNFLEET_SERVER_STORED_CHECK_H_

#include <vector>

#include "absl/status/status.h"
#include "server/job_store.h"

namespace attnfleet::server {

// Whether a coordinator can go on with what a store held: what it relies on holds in everything that one has saved.
// DATA_LOSS names the benchmark or the run and what is wrong with it. Pure.
absl::Status CheckStored(const std::vector<StoredBenchmark>& stored);

// Whether a stored spec can be expanded at all: ExpandJobs makes as many runs as it says. DATA_LOSS as above. Pure.
absl::Status CheckStoredSpec(uint64_t benchmark_id, const v1::BenchmarkSpec& spec);

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_STORED_CHECK_H_
