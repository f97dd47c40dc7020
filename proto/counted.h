#ifndef ATTNFLEET_PROTO_COUNTED_H_
#define ATTNFLEET_PROTO_COUNTED_H_

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"

namespace attnfleet {

// "1 run", "2 runs".
inline std::string Counted(uint64_t count, const std::string& word) {
  return absl::StrCat(count, " ", word, count == 1 ? "" : "s");
}

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_COUNTED_H_
