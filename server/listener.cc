#include "server/listener.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

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

}  // namespace

absl::StatusOr<Listener> Listen(const std::string& address, const std::vector<grpc::Service*>& services,
                                Interceptors interceptors, grpc::CallbackGenericService* rest) {
  if (SomebodyListens(address)) {
    return absl::UnavailableError(absl::StrCat(address, " is in use by another process"));
  }
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  // gRPC's default lets a second server listen on the same port and take half of the connections.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  ApplyServerLimits(builder);
  int port = 0;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  for (grpc::Service* service : services) builder.RegisterService(service);
  if (rest != nullptr) builder.RegisterCallbackGenericService(rest);
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  const mode_t mask = umask(0177);
  Listener listener;
  listener.server = builder.BuildAndStart();
  umask(mask);
  if (listener.server == nullptr || port == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", address, " (in use by another process?)"));
  }
  listener.address = address;
  if (!absl::StartsWith(address, "unix:")) {
    listener.address = absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
  }
  return listener;
}

}  // namespace attnfleet::server
