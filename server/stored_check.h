#ifndef ATTNFLEET_SERVER_STORED_CHECK_H_
#define ATTNFLEET_SERVER_STORED_CHECK_H_

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::server {

// Whether a coordinator can go on with what a store held: what it relies on holds in everything that one has saved.
// The benchmarks are complete, with jobs and runs. DATA_LOSS names the benchmark or the run and what is wrong with it.
// Pure.
absl::Status CheckStored(const std::vector<v1::Benchmark>& stored);
// The same one by one; `busy` is what the ones before have taken.
using BusySlots = std::set<std::pair<std::string, std::string>>;  // worker, slot
absl::Status CheckStored(const v1::Benchmark& benchmark, BusySlots& busy);

// Whether a stored benchmark without jobs can be expanded at all: ExpandJobs makes as many runs as its spec and nodes
// say. DATA_LOSS as above. Pure.
absl::Status CheckStoredSpec(const v1::Benchmark& head);

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_STORED_CHECK_H_
