#ifndef ATTNFLEET_SERVER_STORED_CHECK_H_
#define ATTNFLEET_SERVER_STORED_CHECK_H_

#include <cstdint>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::server {

// What a coordinator relies on to go on with what a store held; it holds in everything that one has saved. Pure.

using BusySlots = std::set<std::pair<std::string, std::string>>;  // worker, slot

// The benchmark is complete, with jobs and runs; `busy` is what the ones before have taken. DATA_LOSS names the
// benchmark or the run and what is wrong with it.
absl::Status CheckStored(const v1::Benchmark& benchmark, BusySlots& busy);

// Whether a stored benchmark without jobs can be expanded at all: ExpandJobs makes as many runs as its spec and nodes
// say. DATA_LOSS as above.
absl::Status CheckStoredSpec(const v1::Benchmark& head);

// The rules of both, for who looks for every fault: what is wrong, or "".
std::string SpecFault(const v1::Benchmark& head);
// `node` is where the run's job has to run, null: anywhere. `busy` and `active_groups` are what active runs before this
// one have taken, of every benchmark and of its own.
std::string RunFault(const v1::Run& run, const v1::Node* node, uint32_t group, BusySlots& busy,
                     std::set<uint32_t>& active_groups);

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_STORED_CHECK_H_
