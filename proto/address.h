#ifndef ATTNFLEET_PROTO_ADDRESS_H_
#define ATTNFLEET_PROTO_ADDRESS_H_

#include <grpcpp/channel.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/support/channel_arguments.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "proto/credentials.h"
#include "proto/message_size.h"

namespace attnfleet {

inline constexpr char kDefaultAddress[] = "127.0.0.1:7600";

// Accepts HOST:PORT, [IPV6]:PORT and unix:PATH (at most 107 bytes of path). INVALID_ARGUMENT says what is wrong with
// it; `flag` ("--server") opens the message.
absl::Status ValidateAddress(const std::string& flag, const std::string& address);

// True if nobody on another machine can reach it: unix:PATH, localhost, 127.0.0.0/8 or [::1].
bool IsLocalAddress(const std::string& address);

// The project's limits and keep-alive.
grpc::ChannelArguments MakeChannelArguments();
// A channel with these. Connects lazily.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, const TlsFiles& tls = {});

// Gives a server the same limits and bounds on what connections may hold, and lets clients keep connections alive.
void ApplyServerLimits(grpc::ServerBuilder& builder);

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_ADDRESS_H_
