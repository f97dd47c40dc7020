#ifndef ATTNFLEET_PROTO_REQUEST_ID_H_
#define ATTNFLEET_PROTO_REQUEST_ID_H_

#include <string_view>

namespace attnfleet {

// The environment variable by which a trainer is told the request id of its run.
inline constexpr char kRequestIdVariable[] = "ATTNFLEET_REQUEST_ID";

// At most 64 letters, digits and -._: so that it needs no quoting anywhere; "" is none and possible.
constexpr bool IsRequestId(std::string_view text) {
  if (text.size() > 64) return false;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                       c == '.' || c == '_' || c == ':';
    if (!plain) return false;
  }
  return true;
}

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_REQUEST_ID_H_
