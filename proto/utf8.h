#ifndef ATTNFLEET_PROTO_UTF8_H_
#define ATTNFLEET_PROTO_UTF8_H_

#include <string>
#include <string_view>

namespace attnfleet {

// Every byte that is no part of well-formed UTF-8 becomes '?'. A message whose string field holds such a byte cannot be
// read by its receiver.
std::string ToUtf8(std::string_view text);

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_UTF8_H_
