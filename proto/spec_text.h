#ifndef ATTNFLEET_PROTO_SPEC_TEXT_H_
#define ATTNFLEET_PROTO_SPEC_TEXT_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet {

// Reads a spec file: protobuf text format of BenchmarkSpec. INVALID_ARGUMENT is "FILE:LINE:COLUMN: what is wrong"; an
// unknown field is told with the nearest one that exists, an unknown value of an enum with all that there are, anything
// else with what the file should look like.
absl::StatusOr<v1::BenchmarkSpec> ParseSpecText(std::string_view text, std::string_view file);

// The text format of a spec, as ParseSpecText reads it.
std::string FormatSpecText(const v1::BenchmarkSpec& spec);

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_SPEC_TEXT_H_
