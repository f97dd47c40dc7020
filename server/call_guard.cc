#include "server/call_guard.h"

#include <grpc/grpc.h>
#include <grpcpp/server_context.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/status.h"
#include "proto/support/log.h"

namespace attnfleet::server {
namespace {

using Clock = std::chrono::steady_clock;
using grpc::experimental::InterceptionHookPoints;

// How often open calls and the access list are looked at: a revoked peer is cut off within two of them.
constexpr std::chrono::milliseconds kPeriod{1'000};

std::string KeyOf(const Certificate& peer, const std::string& rpc) { return absl::StrCat(peer.name, " ", rpc); }

}  // namespace

// One open call, from the moment that its service has it until gRPC is done with it.
class CallGuard::Call : public grpc::experimental::Interceptor {
 public:
  Call(CallGuard& guard, grpc::experimental::ServerRpcInfo* info)
      : guard_(guard), context_(*info->server_context()), rpc_(info->method()) {}

  ~Call() override {
    if (call_ == nullptr) return;
    {
      const std::lock_guard<std::mutex> lock(guard_.mutex_);
      guard_.calls_.erase(this);
      if (peer_) guard_.keys_.erase(guard_.keys_.find(KeyOf(*peer_, rpc_)));
    }
    grpc_call_unref(call_);
  }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    // The first of all; before it the context need not have its call yet.
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) Begin();
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_MESSAGE)) spoken_ = true;
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_MESSAGE)) sending_since_ = Clock::now();
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_SEND_MESSAGE)) sending_since_ = kNotSending;
    methods->Proceed();
  }

  // Why the call must end now; nothing if it may go on, or is ending already. The guard's mutex is held.
  std::optional<std::string> Fault(Clock::time_point now, const CallLimits& limits) const {
    if (ended_) return std::nullopt;
    if (!spoken_ && now - begin_ > limits.first_message) return "its peer says nothing";
    const Clock::time_point sending = sending_since_;
    if (sending != kNotSending && now - sending > limits.send) return "its peer does not read";
    if (guard_.access_ == nullptr) return std::nullopt;
    if (!peer_) return "its peer has no certificate";
    if (excess_ && guard_.keys_.count(KeyOf(*peer_, rpc_)) > guard_.MostOpen(rpc_)) {
      return absl::StrCat("its peer has too many open calls of ", rpc_);
    }
    const absl::Status status = guard_.access_->Check(*peer_, rpc_, absl::Now());
    if (status.ok()) return std::nullopt;
    return std::string(status.message());
  }

  // Gives the call out to be cancelled without the guard's mutex, which is held here. The reference keeps the call, and
  // nothing of this object or of the context, which may be gone by then.
  grpc_call* TakeToEnd() {
    ended_ = true;
    grpc_call_ref(call_);
    return call_;
  }

  // The certificate's name, or the address without its port.
  std::string Peer() const { return peer_ ? peer_->name : address_.substr(0, address_.rfind(':')); }

 private:
  static constexpr Clock::time_point kNotSending = Clock::time_point::max();

  void Begin() {
    call_ = context_.c_call();
    grpc_call_ref(call_);
    if (guard_.access_ != nullptr) {
      const absl::StatusOr<Certificate> peer = PeerCertificate(*context_.auth_context());
      if (peer.ok()) peer_ = *peer;
    }
    if (!peer_) address_ = context_.peer();
    const std::lock_guard<std::mutex> lock(guard_.mutex_);
    guard_.calls_.insert(this);
    if (!peer_) return;
    excess_ = guard_.keys_.count(KeyOf(*peer_, rpc_)) >= guard_.MostOpen(rpc_);
    guard_.keys_.insert(KeyOf(*peer_, rpc_));
  }

  // Constant after construction.
  CallGuard& guard_;
  grpc::ServerContextBase& context_;
  const std::string rpc_;
  const Clock::time_point begin_ = Clock::now();

  // Constant after Begin.
  grpc_call* call_ = nullptr;  // a reference of its own
  std::optional<Certificate> peer_;
  std::string address_;  // without a certificate
  bool excess_ = false;  // came together with others, and is one too many

  bool ended_ = false;  // guarded by the guard's mutex
  std::atomic<bool> spoken_{false};
  std::atomic<Clock::time_point> sending_since_{kNotSending};
};

class CallGuard::Processor : public grpc::AuthMetadataProcessor {
 public:
  explicit Processor(CallGuard& guard) : guard_(guard) {}

  bool IsBlocking() const override { return false; }

  grpc::Status Process(const InputMetadata& metadata, grpc::AuthContext* context, OutputMetadata*,
                       OutputMetadata*) override {
    grpc::Status status = Judge(metadata, *context);
    if (!status.ok() && guard_.refused_) guard_.refused_(status.error_code());
    return status;
  }

 private:
  grpc::Status Judge(const InputMetadata& metadata, const grpc::AuthContext& context) const {
    const auto path = metadata.find(":path");
    if (path == metadata.end()) return {grpc::StatusCode::UNAUTHENTICATED, "the call names no method"};
    // gRPC's own limit holds only for peers that have acknowledged it.
    size_t bytes = 0;
    for (const auto& [name, value] : metadata) bytes += name.size() + value.size();
    if (bytes > guard_.limits_.metadata_bytes) {
      return {grpc::StatusCode::RESOURCE_EXHAUSTED, absl::StrCat("the call has ", bytes, " bytes of metadata; at most ",
                                                                 guard_.limits_.metadata_bytes, " are possible")};
    }
    return guard_.LetIn(context, {path->second.data(), path->second.size()});
  }

  CallGuard& guard_;
};

class CallGuard::Factory : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit Factory(CallGuard& guard) : guard_(guard) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override {
    return new Call(guard_, info);
  }

 private:
  CallGuard& guard_;
};

CallGuard::CallGuard(AccessControl* access, CallLimits limits, std::function<void(grpc::StatusCode)> refused)
    : access_(access), limits_(limits), refused_(std::move(refused)), thread_([this] { Loop(); }) {}

CallGuard::~CallGuard() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

std::shared_ptr<grpc::AuthMetadataProcessor> CallGuard::MakeProcessor() { return std::make_shared<Processor>(*this); }

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> CallGuard::MakeInterceptorFactory() {
  return std::make_unique<Factory>(*this);
}

size_t CallGuard::MostOpen(const std::string& rpc) const {
  return RolesFor(rpc) == kWorker ? limits_.workers_per_peer : limits_.open_per_peer;
}

grpc::Status CallGuard::LetIn(const grpc::AuthContext& context, const std::string& rpc) {
  const absl::StatusOr<Certificate> peer = PeerCertificate(context);
  if (!peer.ok()) return ToGrpc(peer.status());
  if (const absl::Status status = access_->Admit(*peer, rpc, absl::Now()); !status.ok()) return ToGrpc(status);
  const size_t most = MostOpen(rpc);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (keys_.count(KeyOf(*peer, rpc)) < most) return grpc::Status::OK;
  return {grpc::StatusCode::RESOURCE_EXHAUSTED,
          absl::StrCat(peer->name, " has ", most, " open calls of ", rpc, "; end one first")};
}

void CallGuard::Loop() {
  const std::chrono::milliseconds period = std::min({kPeriod, limits_.first_message, limits_.send});
  std::unique_lock<std::mutex> lock(mutex_);
  while (!wake_.wait_for(lock, period, [this] { return stopping_; })) {
    lock.unlock();
    if (access_ != nullptr) access_->Reload();
    EndSome();
    lock.lock();
  }
}

void CallGuard::EndSome() {
  const Clock::time_point now = Clock::now();
  std::map<std::string, int> ended;  // one line for each peer and fault, however many calls there are
  std::vector<grpc_call*> to_end;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (Call* call : calls_) {
      const std::optional<std::string> fault = call->Fault(now, limits_);
      if (!fault) continue;
      to_end.push_back(call->TakeToEnd());
      ++ended[absl::StrCat(call->Peer(), ": ", *fault)];
    }
  }
  // Not under the mutex: gRPC may run the call's last steps, ~Call among them, on this thread before it returns.
  for (grpc_call* call : to_end) {
    grpc_call_cancel_with_status(call, GRPC_STATUS_CANCELLED, "ended by the server", nullptr);
    grpc_call_unref(call);
  }
  for (const auto& [why, calls] : ended) LogWarning(absl::StrCat("ended ", calls, " call(s) of ", why));
}

}  // namespace attnfleet::server
