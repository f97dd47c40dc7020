#include "proto/address.h"

#include <grpc/grpc.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/resource_quota.h>
#include <sys/un.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace attnfleet {
namespace {

// A client has one or two streams, a worker one.
constexpr int kMaxStreamsPerConnection = 32;
constexpr int kMaxMetadataBytes = 8 << 10;
// What connections may hold in buffers, all of them together; beyond it gRPC closes those that hold most.
constexpr size_t kBufferBytes = size_t{1} << 30;
// A connection that does not get through its handshake, or has no call.
constexpr int kHandshakeLimitMs = 10'000;
constexpr int kIdleLimitMs = 60'000;

constexpr size_t kMaxSocketPath = sizeof(sockaddr_un{}.sun_path) - 1;

struct HostPort {
  std::string host;
  int port = -1;
};

// port is -1 if the text is not HOST:PORT.
HostPort Split(const std::string& address) {
  HostPort result;
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) return result;
  result.host = address.substr(0, colon);
  const bool bracketed = result.host.front() == '[' && result.host.back() == ']';
  if (!bracketed && absl::StrContains(result.host, ":")) return result;
  int port = -1;
  if (absl::SimpleAtoi(address.substr(colon + 1), &port) && port >= 0 && port <= 65535) result.port = port;
  return result;
}

}  // namespace

absl::Status ValidateAddress(const std::string& flag, const std::string& address) {
  if (absl::StartsWith(address, "unix:")) {
    const size_t length = address.size() - 5;
    if (length == 0) return absl::InvalidArgumentError(absl::StrCat(flag, ": unix: needs a path after the colon"));
    if (length > kMaxSocketPath) {
      return absl::InvalidArgumentError(absl::StrCat(flag, ": the socket path has ", length, " bytes, at most ",
                                                     kMaxSocketPath, " are possible: ", address));
    }
    return absl::OkStatus();
  }
  if (Split(address).port >= 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": \"", address, "\" is no address; give HOST:PORT (127.0.0.1:7600) or unix:PATH"));
}

bool IsLocalAddress(const std::string& address) {
  if (absl::StartsWith(address, "unix:")) return true;
  const std::string host = Split(address).host;
  return host == "localhost" || host == "[::1]" || absl::StartsWith(host, "127.");
}

grpc::ChannelArguments MakeChannelArguments() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxAnswerBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  // A coordinator that hangs is noticed within ten seconds, when another may lead already.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 6'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 3'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // gRPC's own back-off grows to two minutes, which a restarted coordinator would have to wait for.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // This one is the least time that gRPC gives to an attempt: a TLS handshake on a slow path takes several round trips.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5'000);
  // A proxy set for the web must not see the fleet's traffic.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // Connections of one process must fail and recover on their own.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return arguments;
}

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, const TlsFiles& tls) {
  return grpc::CreateCustomChannel(address, MakeChannelCredentials(tls), MakeChannelArguments());
}

void ApplyServerLimits(grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxAnswerBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeLimitMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, kIdleLimitMs);
  builder.SetResourceQuota(grpc::ResourceQuota("attnfleet").Resize(kBufferBytes));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // Two servers on one port would share its connections at random; the second must fail instead.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

}  // namespace attnfleet
