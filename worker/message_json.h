#ifndef ATTNFLEET_WORKER_MESSAGE_JSON_H_
#define ATTNFLEET_WORKER_MESSAGE_JSON_H_

#include <google/protobuf/message.h>

#include <string_view>

namespace attnfleet::worker {

// Fills an empty message from one JSON object as a trainer writes it: protobuf JSON with the names of the proto file.
// Fields and names of enum values that this build does not know are skipped. False if it is no such object; the message
// then holds a part of it. Much quicker than protobuf's own reader, which takes longer than a small process's start. No
// maps, no bytes.
bool MessageFromJson(std::string_view json, google::protobuf::Message& message);

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_MESSAGE_JSON_H_
