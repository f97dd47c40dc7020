#ifndef ATTNFLEET_CLIENT_RESULT_FILE_H_
#define ATTNFLEET_CLIENT_RESULT_FILE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::client {

// Raw results as --format=json writes them: one benchmark as an object, several as an array.
std::string ResultJson(const std::vector<v1::Benchmark>& benchmarks);

// The reverse; nothing is lost on the way. INVALID_ARGUMENT says what is wrong.
absl::StatusOr<std::vector<v1::Benchmark>> ParseResultJson(const std::string& text);

// The benchmarks of all the files, in order. Errors name the file, and say what would be right.
absl::StatusOr<std::vector<v1::Benchmark>> ReadResultFiles(const std::vector<std::string>& paths);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_RESULT_FILE_H_
