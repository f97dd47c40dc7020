#ifndef ATTNFLEET_PROTO_PART_H_
#define ATTNFLEET_PROTO_PART_H_

#include <string>

#include "absl/status/statusor.h"

namespace attnfleet {

// A part of something, as flags take it: "0.5%" and "0.005" are 0.005. INVALID_ARGUMENT quotes the text unless
// 0 <= part < 1.
absl::StatusOr<double> ParsePart(const std::string& text);

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_PART_H_
