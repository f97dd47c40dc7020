#ifndef ATTNFLEET_SERVER_LISTENER_H_
#define ATTNFLEET_SERVER_LISTENER_H_

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>
#include <grpcpp/support/server_interceptor.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/credentials.h"
#include "server/acceptor.h"
#include "server/access_control.h"
#include "server/call_guard.h"

namespace attnfleet::server {

using Interceptors = std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>;

// For calls to end by themselves; at most the age itself.
inline constexpr std::chrono::milliseconds kAgeGrace{60'000};

struct ListenOptions {
  std::string address;                // HOST:PORT or unix:PATH
  TlsFiles tls = {};                  // none: plain text
  AccessControl* access = nullptr;    // with TLS: who may call what; outlives the server
  ConnectionLimits connections = {};  // not of a Unix socket
  CallLimits calls = {};
  // After about so long a TCP connection takes no new calls, and after kAgeGrace it is closed: its peer has to come
  // anew, with a certificate that holds now. 0: never.
  std::chrono::milliseconds max_age{0};
  std::function<void(grpc::StatusCode)> refused = {};  // of each call that the guard does not let in; thread-safe
};

// In the order in which they are made; they end in the reverse order.
struct Listener {
  std::unique_ptr<CallGuard> guard;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<Acceptor> acceptor;
  std::string address;  // as clients dial it: port 0 has become the one that was chosen
};

// Serves the services, and with them gRPC's health service and, in plain text, server reflection. A Unix socket is for
// its owner alone. `rest`, if any, gets the calls of all other services. The services must outlive the server.
// UNAVAILABLE if another process holds the address.
absl::StatusOr<Listener> Listen(const ListenOptions& options, const std::vector<grpc::Service*>& services,
                                Interceptors interceptors = {}, grpc::CallbackGenericService* rest = nullptr);

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_LISTENER_H_
