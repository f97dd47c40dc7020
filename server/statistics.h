#ifndef ATTNFLEET_SERVER_STATISTICS_H_
#define ATTNFLEET_SERVER_STATISTICS_H_

#include <vector>

#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::server {

// The middle value, or the mean of the two middle ones; 0 of nothing.
double Median(std::vector<double> values);

// Fills in every job's summary from its runs. Ratios are paired: it/s of a repetition over it/s of eager's repetition
// of the same number in the same group. Contaminated runs count only where `include_contaminated`, or where a job has
// no other; a ratio is never made of the latter. Pure.
void Summarize(v1::Benchmark& benchmark, bool include_contaminated);

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_STATISTICS_H_
