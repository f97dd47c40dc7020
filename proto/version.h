#ifndef ATTNFLEET_PROTO_VERSION_H_
#define ATTNFLEET_PROTO_VERSION_H_

#include <cstdint>

namespace attnfleet {

// Of the worker stream. Grows when a worker and a coordinator of different numbers cannot understand each other.
inline constexpr uint32_t kProtocolVersion = 1;

inline constexpr char kVersion[] = ATTNFLEET_VERSION;

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_VERSION_H_
