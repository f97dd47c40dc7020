#ifndef ATTNFLEET_CLIENT_MESSAGE_JSON_H_
#define ATTNFLEET_CLIENT_MESSAGE_JSON_H_

#include <google/protobuf/message.h>

#include <string>

#include "absl/status/status.h"

namespace attnfleet::client {

// A message as JSON for machines, indented, ending in a newline. Unlike protobuf's own form: names as in the .proto,
// every number a JSON number (64-bit ones too), NaN and infinity null. Scalars without presence and lists are always
// there, messages and optional fields when set, enums by name.
std::string MessageJson(const google::protobuf::Message& message);

// Reads that form; null becomes NaN. INVALID_ARGUMENT names a field that the message does not have, or that
// cannot have its value.
absl::Status ParseMessageJson(const std::string& text, google::protobuf::Message& message);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_MESSAGE_JSON_H_
