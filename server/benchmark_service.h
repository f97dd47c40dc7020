#ifndef ATTNFLEET_SERVER_BENCHMARK_SERVICE_H_
#define ATTNFLEET_SERVER_BENCHMARK_SERVICE_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <optional>
#include <string>

#include "attnfleet/v1/service.grpc.pb.h"
#include "server/access_control.h"
#include "server/coordinator.h"

namespace attnfleet::server {

// What tells of a whole benchmark is sent as the coordinator has it, in bytes: one copy for all who read it.
template <typename Service>
using WithSharedAnswers =
    v1::BenchmarkService::WithRawCallbackMethod_Submit<v1::BenchmarkService::WithRawCallbackMethod_Get<
        v1::BenchmarkService::WithRawCallbackMethod_Cancel<v1::BenchmarkService::WithRawCallbackMethod_Pause<
            v1::BenchmarkService::WithRawCallbackMethod_Resume<v1::BenchmarkService::WithRawCallbackMethod_Watch<
                v1::BenchmarkService::WithRawCallbackMethod_Explain<Service>>>>>>>;

// Translates users' RPCs to calls of the coordinator.
class BenchmarkService
    : public WithSharedAnswers<v1::BenchmarkService::WithCallbackMethod_List<v1::BenchmarkService::Service>> {
 public:
  // `access` null: plain text, where callers say themselves who they are.
  explicit BenchmarkService(Coordinator& coordinator, const AccessControl* access = nullptr)
      : coordinator_(coordinator), access_(access) {}

  grpc::ServerUnaryReactor* Submit(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Get(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Pause(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Resume(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Watch(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context, const v1::ListRequest* request,
                                 v1::ListResponse* response) override;

 private:
  // Whose benchmarks the peer may change: "" if everybody's; nothing if it has no name.
  std::optional<std::string> Owner(const grpc::CallbackServerContext& context) const;
  grpc::ServerUnaryReactor* SetPaused(grpc::CallbackServerContext& context, uint64_t id, bool paused,
                                      grpc::ByteBuffer* response);

  Coordinator& coordinator_;
  const AccessControl* const access_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_BENCHMARK_SERVICE_H_
