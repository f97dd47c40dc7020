#include "server/listener.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server_builder.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/address.h"

namespace attnfleet::server {
namespace {

// gRPC would take over the path of a Unix socket that is in use.
bool SomebodyListens(const std::string& address) {
  if (!absl::StartsWith(address, "unix:")) return false;
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::strncpy(name.sun_path, address.c_str() + 5, sizeof name.sun_path - 1);
  const int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool listens = connect(descriptor, reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0;
  close(descriptor);
  return listens;
}

absl::Status CannotListen(const std::string& address) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", address, " (in use by another process?)"));
}

}  // namespace

absl::StatusOr<Listener> Listen(const ListenOptions& options, const std::vector<grpc::Service*>& services,
                                Interceptors interceptors, grpc::CallbackGenericService* rest) {
  const bool local = absl::StartsWith(options.address, "unix:");
  if (SomebodyListens(options.address)) {
    return absl::UnavailableError(absl::StrCat(options.address, " is in use by another process"));
  }
  Listener listener{std::make_unique<CallGuard>(options.access, options.calls, options.refused), nullptr, nullptr,
                    options.address};
  const std::shared_ptr<grpc::ServerCredentials> credentials = MakeServerCredentials(options.tls);
  if (options.access != nullptr) credentials->SetAuthMetadataProcessor(listener.guard->MakeProcessor());

  grpc::EnableDefaultHealthCheckService(true);
  if (options.tls.empty()) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  ApplyServerLimits(builder);
  interceptors.push_back(listener.guard->MakeInterceptorFactory());
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  for (grpc::Service* service : services) builder.RegisterService(service);
  if (rest != nullptr) builder.RegisterCallbackGenericService(rest);

  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> connections;
  if (!local && options.max_age.count() > 0) {
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, static_cast<int>(options.max_age.count()));
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                               static_cast<int>(std::min(options.max_age, kAgeGrace).count()));
  }
  if (local) {
    builder.AddListeningPort(options.address, credentials);
  } else {
    absl::StatusOr<std::unique_ptr<Acceptor>> acceptor = Acceptor::Bind(options.address, options.connections);
    if (!acceptor.ok()) return acceptor.status();
    listener.acceptor = *std::move(acceptor);
    listener.address = listener.acceptor->address();
    connections = builder.experimental().AddExternalConnectionAcceptor(
        grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, credentials);
  }
  const mode_t mask = umask(0177);
  listener.server = builder.BuildAndStart();
  umask(mask);
  if (listener.server == nullptr) return CannotListen(options.address);
  if (!local) listener.acceptor->Start(std::move(connections));
  return listener;
}

}  // namespace attnfleet::server
