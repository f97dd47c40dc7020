#ifndef ATTNFLEET_SERVER_RPC_METRICS_H_
#define ATTNFLEET_SERVER_RPC_METRICS_H_

#include <grpcpp/support/server_interceptor.h>
#include <grpcpp/support/status.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <map>
#include <memory>
#include <string>

namespace attnfleet::server {

// Every RPC by method and code, how long unary ones took, and calls that were not let in. Bounded: attnfleet's own
// methods by name, all others (health, reflection, what does not exist) as "other".
class RpcMetrics {
 public:
  explicit RpcMetrics(prometheus::Registry& registry);

  // For the server's builder. This must outlive the server.
  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeInterceptors();

  // Counts a call that was not let in, which no interceptor sees.
  void Refused(grpc::StatusCode code);

  static constexpr size_t kCodes = 17;  // gRPC's: OK to UNAUTHENTICATED
  struct Method {
    std::array<prometheus::Counter*, kCodes> ended{};
    prometheus::Histogram* seconds = nullptr;  // null for streams, which last as long as they are wanted
    prometheus::Gauge* open = nullptr;
  };

 private:
  // Constant after construction.
  std::map<std::string, Method> methods_;  // by "/attnfleet.v1.Service/Method"
  Method other_;
  std::array<prometheus::Counter*, kCodes> refused_{};
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_RPC_METRICS_H_
