#ifndef ATTNFLEET_CLIENT_RESULT_DETAILS_H_
#define ATTNFLEET_CLIENT_RESULT_DETAILS_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::client {

// For people: everything that is known about each cell, figures and where they come from. What is not known says so.
// `where` as in ResultSource.
std::string ResultDetails(const std::vector<v1::Benchmark>& benchmarks, const std::string& where, int width,
                          absl::TimeZone zone);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_RESULT_DETAILS_H_
