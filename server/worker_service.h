#ifndef ATTNFLEET_SERVER_WORKER_SERVICE_H_
#define ATTNFLEET_SERVER_WORKER_SERVICE_H_

#include "attnfleet/v1/worker.grpc.pb.h"
#include "server/access_control.h"
#include "server/coordinator.h"

namespace attnfleet::server {

// INVALID_ARGUMENT names the field; FAILED_PRECONDITION if the worker speaks another protocol.
absl::Status ValidateHello(const v1::WorkerHello& hello);

// A result whose outcome this build does not know (of a newer worker, or none at all) becomes a failure that says so.
// Texts and lists that are longer than any worker of this build makes them are cut: a result is kept in memory and read
// by everybody.
void NormalizeResults(v1::WorkerEvent& event);

// The workers' streams, one reactor each.
class WorkerService : public v1::WorkerService::CallbackService {
 public:
  // `access` null: plain text, where workers say themselves who they are.
  explicit WorkerService(Coordinator& coordinator, const AccessControl* access = nullptr)
      : coordinator_(coordinator), access_(access) {}

  grpc::ServerBidiReactor<v1::WorkerEvent, v1::WorkerCommand>* Connect(grpc::CallbackServerContext* context) override;

 private:
  Coordinator& coordinator_;
  const AccessControl* const access_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_WORKER_SERVICE_H_
