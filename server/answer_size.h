#ifndef ATTNFLEET_SERVER_ANSWER_SIZE_H_
#define ATTNFLEET_SERVER_ANSWER_SIZE_H_

#include <google/protobuf/message_lite.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "attnfleet/v1/benchmark.pb.h"
#include "proto/message_size.h"

namespace attnfleet::server {

// Of an answer that may be a field of another message (Submit, Watch): its tag and its length come before it.
inline constexpr size_t kMaxFramedAnswerBytes = kMaxAnswerBytes - 16;

// Leaves out of a benchmark with its jobs what makes it larger than `limit` when serialized, for as long as it is: logs
// of trainers first, then the names of kernels, then the reasons of attempts that were retried; of each the last
// repetitions' first, so that something is left of every job. In place of each is said that it was left out. Pure.
void FitInto(size_t limit, v1::Benchmark& benchmark);

// OUT_OF_RANGE if the message about this benchmark is larger than `limit`.
absl::StatusOr<std::shared_ptr<const std::string>> SerializeWithin(size_t limit, uint64_t id,
                                                                   const google::protobuf::MessageLite& message);

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_ANSWER_SIZE_H_
