#include "server/rpc_metrics.h"

#include <algorithm>
#include <chrono>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "attnfleet/v1/service.pb.h"

namespace attnfleet::server {
namespace {

using Clock = std::chrono::steady_clock;

// gRPC has no other codes, but a status can be made of any number.
size_t IndexOf(grpc::StatusCode code) { return std::min(static_cast<size_t>(code), RpcMetrics::kCodes - 1); }

std::string NameOf(size_t code) { return absl::StatusCodeToString(static_cast<absl::StatusCode>(code)); }

class Interceptor : public grpc::experimental::Interceptor {
 public:
  explicit Interceptor(const RpcMetrics::Method& method) : method_(method) { method_.open->Increment(); }
  ~Interceptor() override { method_.open->Decrement(); }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(grpc::experimental::InterceptionHookPoints::PRE_SEND_STATUS)) {
      method_.ended[IndexOf(methods->GetSendStatus().error_code())]->Increment();
      if (method_.seconds != nullptr) {
        method_.seconds->Observe(std::chrono::duration<double>(Clock::now() - start_).count());
      }
    }
    methods->Proceed();
  }

 private:
  const RpcMetrics::Method& method_;
  const Clock::time_point start_ = Clock::now();
};

class Factory : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  Factory(const std::map<std::string, RpcMetrics::Method>& methods, const RpcMetrics::Method& other)
      : methods_(methods), other_(other) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override {
    const auto found = info->method() == nullptr ? methods_.end() : methods_.find(info->method());
    return new Interceptor(found == methods_.end() ? other_ : found->second);
  }

 private:
  const std::map<std::string, RpcMetrics::Method>& methods_;
  const RpcMetrics::Method& other_;
};

}  // namespace

RpcMetrics::RpcMetrics(prometheus::Registry& registry) {
  auto& ended = prometheus::BuildCounter()
                    .Name("attnfleet_rpcs_total")
                    .Help("RPCs that ended, by method and gRPC code; not those that were refused.")
                    .Register(registry);
  auto& open = prometheus::BuildGauge()
                   .Name("attnfleet_rpcs_open")
                   .Help("RPCs that have begun and not ended; of streams, those that are open.")
                   .Register(registry);
  auto& seconds = prometheus::BuildHistogram()
                      .Name("attnfleet_rpc_seconds")
                      .Help("Duration of unary RPCs, from the request's arrival to the answer.")
                      .Register(registry);
  const auto make = [&](const std::string& name, bool unary) {
    Method method;
    for (size_t code = 0; code < kCodes; ++code) {
      method.ended[code] = &ended.Add({{"method", name}, {"code", NameOf(code)}});
    }
    method.open = &open.Add({{"method", name}});
    if (unary) {
      method.seconds =
          &seconds.Add({{"method", name}}, prometheus::Histogram::BucketBoundaries{
                                               0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10});
    }
    return method;
  };
  for (const google::protobuf::FileDescriptor* file :
       {v1::SubmitRequest::descriptor()->file(), v1::WorkerEvent::descriptor()->file()}) {
    for (int i = 0; i < file->service_count(); ++i) {
      const google::protobuf::ServiceDescriptor& service = *file->service(i);
      for (int j = 0; j < service.method_count(); ++j) {
        const google::protobuf::MethodDescriptor& method = *service.method(j);
        const bool unary = !method.client_streaming() && !method.server_streaming();
        methods_.emplace(absl::StrCat("/", service.full_name(), "/", method.name()),
                         make(absl::StrCat(service.name(), "/", method.name()), unary));
      }
    }
  }
  other_ = make("other", false);
  auto& refused = prometheus::BuildCounter()
                      .Name("attnfleet_calls_refused_total")
                      .Help("RPCs that were not let in (certificate, role, rate, open calls, metadata), by gRPC code.")
                      .Register(registry);
  for (size_t code = 1; code < kCodes; ++code) refused_[code] = &refused.Add({{"code", NameOf(code)}});
}

void RpcMetrics::Refused(grpc::StatusCode code) { refused_[IndexOf(code)]->Increment(); }

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> RpcMetrics::MakeInterceptors() {
  return std::make_unique<Factory>(methods_, other_);
}

}  // namespace attnfleet::server
