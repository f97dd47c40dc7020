#ifndef ATTNFLEET_SERVER_LISTENER_H_
#define ATTNFLEET_SERVER_LISTENER_H_

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>
#include <grpcpp/support/server_interceptor.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace attnfleet::server {

using Interceptors = std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>;

struct Listener {
  std::unique_ptr<grpc::Server> server;
  std::string address;  // as clients dial it: port 0 has become the one that was chosen
};

// Serves the services, and with them gRPC's health service and server reflection, in plain text on `address` (HOST:PORT
// or unix:PATH; a socket file is for its owner alone). `rest`, if any, gets the calls of all other services. The
// services must outlive the server. UNAVAILABLE if another process holds the address.
absl::StatusOr<Listener> Listen(const std::string& address, const std::vector<grpc::Service*>& services,
                                Interceptors interceptors = {}, grpc::CallbackGenericService* rest = nullptr);

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_LISTENER_H_
