#ifndef ATTNFLEET_SERVER_UNARY_H_
#define ATTNFLEET_SERVER_UNARY_H_

#include <grpcpp/server_context.h>

#include <functional>
#include <utility>

#include "absl/status/statusor.h"
#include "proto/status.h"

namespace attnfleet::server {

// A reply that moves its value into `response` and finishes the call; for RPCs that answer with the coordinator's own
// message.
template <typename T>
std::function<void(absl::StatusOr<T>)> FinishWith(grpc::ServerUnaryReactor* reactor, T* response) {
  return [reactor, response](absl::StatusOr<T> value) {
    if (value.ok()) *response = std::move(*value);
    reactor->Finish(ToGrpc(value.status()));
  };
}

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_UNARY_H_
