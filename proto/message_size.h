#ifndef ATTNFLEET_PROTO_MESSAGE_SIZE_H_
#define ATTNFLEET_PROTO_MESSAGE_SIZE_H_

namespace attnfleet {

// Of one message from a client or a worker to the server.
inline constexpr int kMaxMessageBytes = 64 << 20;
// Of one message from the server. The largest is a benchmark of kMaxRuns runs with a time for each of kMaxTimedSteps
// steps (proto/spec.h).
inline constexpr int kMaxAnswerBytes = 512 << 20;

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_MESSAGE_SIZE_H_
