#ifndef ATTNFLEET_PROTO_NAME_H_
#define ATTNFLEET_PROTO_NAME_H_

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace attnfleet {

inline constexpr size_t kMaxNameLength = 128;

// Whether a text can name a worker, a label, a slot or a backend: 1 to kMaxNameLength printable ASCII characters
// without blanks, so that it stands in a line of a log or a table as it is.
inline bool IsPlainName(std::string_view text) {
  return !text.empty() && text.size() <= kMaxNameLength &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_NAME_H_
