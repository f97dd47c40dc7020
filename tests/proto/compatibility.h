#ifndef ATTNFLEET_TESTS_PROTO_COMPATIBILITY_H_
#define ATTNFLEET_TESTS_PROTO_COMPATIBILITY_H_

#include <google/protobuf/descriptor.pb.h>

#include <string>
#include <vector>

namespace attnfleet {

// What of `now` a program built from `then` would misunderstand, one line each; empty: nothing. Programs meet over the
// wire, over protobuf's JSON (the trainer's lines) and over its text format (spec files), so a field's name counts as
// much as its number:
//   - a message, field, enum, value, service or RPC is gone (a field or value may go if its number and its name are
//     reserved), or has another name, number, type, label, presence or oneof
//   - an RPC takes, returns or streams something else
//   - what was reserved is not reserved any more, or used
std::vector<std::string> Incompatibilities(const google::protobuf::FileDescriptorSet& then,
                                           const google::protobuf::FileDescriptorSet& now);

}  // namespace attnfleet

#endif  // ATTNFLEET_TESTS_PROTO_COMPATIBILITY_H_
