#ifndef ATTNFLEET_SERVER_STANDBY_H_
#define ATTNFLEET_SERVER_STANDBY_H_

#include <grpcpp/generic/async_generic_service.h>

#include <functional>
#include <string>

namespace attnfleet::server {

// What a coordinator that does not lead answers to every RPC: UNAVAILABLE, with the leader's address in the message and
// in the trailing metadata kLeaderMetadata (proto/server_list.h), if it is known.
class StandbyService : public grpc::CallbackGenericService {
 public:
  // `leader` gives the address, or "" if nobody leads; called from any thread.
  explicit StandbyService(std::function<std::string()> leader) : leader_(std::move(leader)) {}

  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override;

 private:
  const std::function<std::string()> leader_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_STANDBY_H_
