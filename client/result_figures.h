#ifndef ATTNFLEET_CLIENT_RESULT_FIGURES_H_
#define ATTNFLEET_CLIENT_RESULT_FIGURES_H_

#include <vector>

#include "attnfleet/v1/benchmark.pb.h"
#include "client/grid.h"

namespace attnfleet::client {

// One row for each measured cell with all its figures: intervals, step times, every kind of memory in GB and GiB.
Grid FiguresGrid(const std::vector<v1::Benchmark>& benchmarks);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_RESULT_FIGURES_H_
