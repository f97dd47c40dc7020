#ifndef ATTNFLEET_CLIENT_RESULT_FLEET_H_
#define ATTNFLEET_CLIENT_RESULT_FLEET_H_

#include <string>
#include <vector>

#include "attnfleet/v1/benchmark.pb.h"
#include "client/grid.h"

namespace attnfleet::client {

// What the nodes of benchmarks with placement every say about each other: the nodes, the slowest first, and the spread
// of each cell. Empty without such a benchmark.
std::vector<Grid> FleetGrids(const std::vector<v1::Benchmark>& benchmarks);

// What is known of a job's node; null if it has none.
const v1::NodeSummary* NodeOf(const v1::Benchmark& benchmark, const v1::Job& job);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_RESULT_FLEET_H_
