#ifndef ATTNFLEET_SERVER_CALL_GUARD_H_
#define ATTNFLEET_SERVER_CALL_GUARD_H_

#include <grpcpp/security/auth_metadata_processor.h>
#include <grpcpp/support/server_interceptor.h>
#include <grpcpp/support/status.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "server/access_control.h"

namespace attnfleet::server {

// How long a peer may leave a call as it is, and how many it may have open.
struct CallLimits {
  std::chrono::milliseconds first_message{10'000};  // a stream that says nothing is ended
  std::chrono::milliseconds send{60'000};           // so is a call whose peer does not read
  size_t open_per_peer = 16;                        // of one RPC, by certificate (see README)
  size_t workers_per_peer = 256;                    // streams of workers that share a certificate
  size_t metadata_bytes = 8 << 10;                  // of one call, with certificates
};

// The one place that every RPC passes, whatever service it is of. It lets a call in (with certificates: only what the
// access list allows), and ends it when the peer is revoked, its certificate expires, or it does not speak or read.
class CallGuard {
 public:
  // `access` null: plain text, without names; then only the limits hold. It must outlive the guard.
  // `refused` is told the code of each call that is not let in, on threads of gRPC.
  CallGuard(AccessControl* access, CallLimits limits, std::function<void(grpc::StatusCode)> refused = {});
  ~CallGuard();
  CallGuard(const CallGuard&) = delete;
  CallGuard& operator=(const CallGuard&) = delete;

  // To let calls in, and to follow them. Both must not outlive the guard, nor must their server.
  std::shared_ptr<grpc::AuthMetadataProcessor> MakeProcessor();
  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> MakeInterceptorFactory();

 private:
  class Processor;
  class Factory;
  class Call;

  size_t MostOpen(const std::string& rpc) const;
  grpc::Status LetIn(const grpc::AuthContext& context, const std::string& rpc);
  void Loop();
  void EndSome();

  // Constant after construction.
  AccessControl* const access_;
  const CallLimits limits_;
  const std::function<void(grpc::StatusCode)> refused_;

  std::mutex mutex_;
  std::condition_variable wake_;
  // Guarded by mutex_.
  std::set<Call*> calls_;
  std::multiset<std::string> keys_;  // name and RPC of each of the calls
  bool stopping_ = false;

  std::thread thread_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_CALL_GUARD_H_
