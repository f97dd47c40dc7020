#ifndef ATTNFLEET_CLIENT_RESULT_CSV_H_
#define ATTNFLEET_CLIENT_RESULT_CSV_H_

#include <string>
#include <vector>

#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::client {

// One line for each cell, with every figure of its summary; units are in the column names. A figure that does not exist
// is an empty field, never 0.
std::string ResultCsv(const std::vector<v1::Benchmark>& benchmarks);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_RESULT_CSV_H_
