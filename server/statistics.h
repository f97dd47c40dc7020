#ifndef ATTNFLEET_SERVER_STATISTICS_H_
#define ATTNFLEET_SERVER_STATISTICS_H_

#include <string>
#include <vector>

#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::server {

// The middle value, or the mean of the two middle ones; 0 of nothing.
double Median(std::vector<double> values);

// Fills in every job's summary from its runs. Ratios are paired: it/s of a repetition over it/s of eager's repetition
// of the same number in the same group. Pure.
void Summarize(v1::Benchmark& benchmark);

// `OOM: asked for 24.0 GiB with 3.1 of 79.2 GiB free (backward)`, or the result's reason, in one line.
std::string ReasonLine(const v1::RunResult& result);

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_STATISTICS_H_
