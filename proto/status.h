#ifndef ATTNFLEET_PROTO_STATUS_H_
#define ATTNFLEET_PROTO_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace attnfleet {

// The two status types have the same codes; only the message travels besides.
grpc::Status ToGrpc(const absl::Status& status);
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_STATUS_H_
