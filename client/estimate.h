#ifndef ATTNFLEET_CLIENT_ESTIMATE_H_
#define ATTNFLEET_CLIENT_ESTIMATE_H_

#include <optional>

#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::client {

// Seconds until the benchmark has ended, from the runs that ended and from what the trainers of running ones expect;
// nothing while neither says anything. Only durations taken on one machine are compared, so clocks need not agree.
std::optional<double> EstimateSecondsLeft(const v1::Benchmark& benchmark);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_ESTIMATE_H_
