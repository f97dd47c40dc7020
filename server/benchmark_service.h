#ifndef ATTNFLEET_SERVER_BENCHMARK_SERVICE_H_
#define ATTNFLEET_SERVER_BENCHMARK_SERVICE_H_

#include <optional>
#include <string>

#include "attnfleet/v1/service.grpc.pb.h"
#include "server/access_control.h"
#include "server/coordinator.h"

namespace attnfleet::server {

// Translates users' RPCs to calls of the coordinator.
class BenchmarkService : public v1::BenchmarkService::CallbackService {
 public:
  // `access` null: plain text, where callers say themselves who they are.
  explicit BenchmarkService(Coordinator& coordinator, const AccessControl* access = nullptr)
      : coordinator_(coordinator), access_(access) {}

  grpc::ServerUnaryReactor* Submit(grpc::CallbackServerContext* context, const v1::SubmitRequest* request,
                                   v1::SubmitResponse* response) override;
  grpc::ServerUnaryReactor* Get(grpc::CallbackServerContext* context, const v1::GetRequest* request,
                                v1::Benchmark* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context, const v1::ListRequest* request,
                                 v1::ListResponse* response) override;
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context, const v1::CancelRequest* request,
                                   v1::Benchmark* response) override;
  grpc::ServerUnaryReactor* Pause(grpc::CallbackServerContext* context, const v1::PauseRequest* request,
                                  v1::Benchmark* response) override;
  grpc::ServerUnaryReactor* Resume(grpc::CallbackServerContext* context, const v1::ResumeRequest* request,
                                   v1::Benchmark* response) override;
  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context, const v1::ExplainRequest* request,
                                    v1::ExplainResponse* response) override;
  grpc::ServerWriteReactor<v1::WatchResponse>* Watch(grpc::CallbackServerContext* context,
                                                     const v1::WatchRequest* request) override;

 private:
  // Whose benchmarks the peer may change: "" if everybody's; nothing if it has no name.
  std::optional<std::string> Owner(const grpc::CallbackServerContext& context) const;

  Coordinator& coordinator_;
  const AccessControl* const access_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_BENCHMARK_SERVICE_H_
