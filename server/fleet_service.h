#ifndef ATTNFLEET_SERVER_FLEET_SERVICE_H_
#define ATTNFLEET_SERVER_FLEET_SERVICE_H_

#include "attnfleet/v1/service.grpc.pb.h"
#include "server/coordinator.h"

namespace attnfleet::server {

// What there is to run on.
class FleetService : public v1::FleetService::CallbackService {
 public:
  explicit FleetService(Coordinator& coordinator) : coordinator_(coordinator) {}

  grpc::ServerUnaryReactor* ListWorkers(grpc::CallbackServerContext* context, const v1::ListWorkersRequest* request,
                                        v1::ListWorkersResponse* response) override;
  grpc::ServerUnaryReactor* SetDrained(grpc::CallbackServerContext* context, const v1::SetDrainedRequest* request,
                                       v1::WorkerStatus* response) override;
  grpc::ServerUnaryReactor* ListBackends(grpc::CallbackServerContext* context, const v1::ListBackendsRequest* request,
                                         v1::ListBackendsResponse* response) override;

 private:
  Coordinator& coordinator_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_FLEET_SERVICE_H_
