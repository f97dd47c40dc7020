#include "server/fleet_service.h"

#include "server/unary.h"

namespace attnfleet::server {

grpc::ServerUnaryReactor* FleetService::ListWorkers(grpc::CallbackServerContext* context, const v1::ListWorkersRequest*,
                                                    v1::ListWorkersResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  coordinator_.ListWorkers(FinishWith(reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* FleetService::SetDrained(grpc::CallbackServerContext* context,
                                                   const v1::SetDrainedRequest* request, v1::WorkerStatus* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  coordinator_.SetDrained(*request, FinishWith(reactor, response));
  return reactor;
}

grpc::ServerUnaryReactor* FleetService::ListBackends(grpc::CallbackServerContext* context,
                                                     const v1::ListBackendsRequest*,
                                                     v1::ListBackendsResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  coordinator_.ListBackends(FinishWith(reactor, response));
  return reactor;
}

}  // namespace attnfleet::server
