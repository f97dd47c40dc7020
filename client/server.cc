#include "client/server.h"

#include <grpcpp/client_context.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/text.h"
#include "proto/status.h"

namespace attnfleet::client {
namespace {

constexpr std::chrono::milliseconds kSignalPoll{20};
constexpr absl::Duration kRetryPause = absl::Milliseconds(150);
// For one try where there are several servers: a leader that hangs must not take the time for finding the next.
constexpr absl::Duration kTryLimit = absl::Seconds(3);

// A handshake that the server breaks off tells no more than that.
const char* ClosedHint(bool secured) {
  return secured ? " (does the server speak TLS, and is --cert of a CA that it trusts?)"
                 : " (does the server want TLS? give --ca, --cert and --key)";
}

// Whether the status of a call came from the server. The same code stands for a connection that failed, and gRPC tells
// the two apart in this text alone.
bool IsFromServer(const grpc::ClientContext& context) {
  return absl::StrContains(context.debug_error_string(), "Error received from peer");
}

}  // namespace

std::string RandomRequestId() {
  std::random_device device;
  return absl::StrFormat("%08x%08x%08x%08x", device(), device(), device(), device());
}

std::string ConnectionProblem(const std::string& grpc_message) {
  const std::string marker = "Failed to connect to remote host: ";
  const size_t found = grpc_message.rfind(marker);
  return found == std::string::npos ? Printable(grpc_message) : Printable(grpc_message.substr(found + marker.size()));
}

Server::Server(std::string address, absl::Duration timeout, StopSignals& signals, const TlsFiles& tls)
    : address_(std::move(address)),
      timeout_(timeout),
      secured_(!tls.empty()),
      signals_(signals),
      leader_(std::make_shared<LeaderChannel>(address_,
                                              [tls](const std::string& server) { return MakeChannel(server, tls); })) {}

void Server::UseChannel() {
  const std::shared_ptr<grpc::Channel> channel = leader_->channel();
  if (channel == channel_) return;
  channel_ = channel;
  benchmarks_ = v1::BenchmarkService::NewStub(channel_);
  fleet_ = v1::FleetService::NewStub(channel_);
}

template <typename Response>
absl::StatusOr<Response> Server::Call(
    const std::function<void(grpc::ClientContext*, Response*, std::function<void(grpc::Status)>)>& start,
    absl::Duration patience) {
  const absl::Duration timeout = std::min(timeout_, patience);
  const absl::Time deadline = absl::Now() + timeout;
  std::string problem = "no answer";
  bool answered = false;
  for (;;) {
    UseChannel();
    grpc::ClientContext context;
    const absl::Time try_deadline = leader_->several() ? std::min(deadline, absl::Now() + kTryLimit) : deadline;
    context.set_deadline(absl::ToChronoTime(try_deadline));
    Response response;
    std::promise<grpc::Status> promise;
    std::future<grpc::Status> answer = promise.get_future();
    start(&context, &response, [&promise](const grpc::Status& status) { promise.set_value(status); });
    while (answer.wait_for(kSignalPoll) != std::future_status::ready) {
      if (signals_.Pending()) context.TryCancel();
    }
    const grpc::Status status = answer.get();
    if (status.ok()) {
      leader_->Worked();
      return response;
    }
    // Where the answer came all the same, the signal is left for who asks next: none may be lost.
    if (signals_.Wait(std::chrono::milliseconds(0)) != 0) return absl::CancelledError("interrupted");
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
      problem = ConnectionProblem(status.error_message());
      answered = IsFromServer(context);
    } else if (status.error_code() == grpc::StatusCode::CANCELLED) {
      // By a server that stops, or no longer leads, before the answer was sent. To callers CANCELLED means a signal.
      problem = "the server ended the call";
      answered = true;
    } else if (status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED) {
      return FromGrpc(status);
    }
    const bool followed = leader_->Failed(channel_, context);
    if (absl::Now() + kRetryPause >= deadline) {
      const std::string tried = FormatDuration(absl::ToDoubleSeconds(timeout));
      if (answered) {
        return absl::UnavailableError(
            absl::StrCat("the server at ", address_, " cannot do it at present (tried for ", tried, "): ", problem));
      }
      return absl::UnavailableError(
          absl::StrCat("cannot reach the server at ", address_, " within ", tried, ": ", problem,
                       absl::StrContains(problem, "Socket closed") ? ClosedHint(secured_) : ""));
    }
    if (followed) continue;
    if (signals_.Wait(absl::ToChronoMilliseconds(kRetryPause)) != 0) return absl::CancelledError("interrupted");
  }
}

absl::StatusOr<v1::Benchmark> Server::Submit(const v1::BenchmarkSpec& spec, const std::string& request_id) {
  v1::SubmitRequest request;
  *request.mutable_spec() = spec;
  request.set_request_id(request_id);
  absl::StatusOr<v1::SubmitResponse> response = Call<v1::SubmitResponse>(
      [&](auto* context, auto* out, auto done) { benchmarks_->async()->Submit(context, &request, out, done); });
  if (!response.ok()) return response.status();
  return std::move(*response->mutable_benchmark());
}

absl::StatusOr<v1::Benchmark> Server::Get(uint64_t id, bool include_contaminated) {
  v1::GetRequest request;
  request.set_id(id);
  request.set_include_contaminated(include_contaminated);
  return Call<v1::Benchmark>(
      [&](auto* context, auto* out, auto done) { benchmarks_->async()->Get(context, &request, out, done); });
}

absl::StatusOr<v1::ListResponse> Server::List(int limit, uint64_t before_id, absl::Duration patience) {
  v1::ListRequest request;
  request.set_limit(limit);
  request.set_before_id(before_id);
  return Call<v1::ListResponse>(
      [&](auto* context, auto* out, auto done) { benchmarks_->async()->List(context, &request, out, done); }, patience);
}

absl::StatusOr<v1::Benchmark> Server::Cancel(uint64_t id, const std::string& reason) {
  v1::CancelRequest request;
  request.set_id(id);
  request.set_reason(reason);
  return Call<v1::Benchmark>(
      [&](auto* context, auto* out, auto done) { benchmarks_->async()->Cancel(context, &request, out, done); });
}

absl::StatusOr<v1::Benchmark> Server::Pause(uint64_t id) {
  v1::PauseRequest request;
  request.set_id(id);
  return Call<v1::Benchmark>(
      [&](auto* context, auto* out, auto done) { benchmarks_->async()->Pause(context, &request, out, done); });
}

absl::StatusOr<v1::Benchmark> Server::Resume(uint64_t id) {
  v1::ResumeRequest request;
  request.set_id(id);
  return Call<v1::Benchmark>(
      [&](auto* context, auto* out, auto done) { benchmarks_->async()->Resume(context, &request, out, done); });
}

absl::StatusOr<v1::ExplainResponse> Server::Explain(uint64_t id, absl::Duration patience) {
  v1::ExplainRequest request;
  request.set_id(id);
  return Call<v1::ExplainResponse>(
      [&](auto* context, auto* out, auto done) { benchmarks_->async()->Explain(context, &request, out, done); },
      patience);
}

absl::StatusOr<v1::ListWorkersResponse> Server::ListWorkers() {
  const v1::ListWorkersRequest request;
  return Call<v1::ListWorkersResponse>(
      [&](auto* context, auto* out, auto done) { fleet_->async()->ListWorkers(context, &request, out, done); });
}

absl::StatusOr<v1::WorkerStatus> Server::SetDrained(const std::string& worker, bool drained) {
  v1::SetDrainedRequest request;
  request.set_worker(worker);
  request.set_drained(drained);
  return Call<v1::WorkerStatus>(
      [&](auto* context, auto* out, auto done) { fleet_->async()->SetDrained(context, &request, out, done); });
}

absl::StatusOr<v1::ListBackendsResponse> Server::ListBackends() {
  const v1::ListBackendsRequest request;
  return Call<v1::ListBackendsResponse>(
      [&](auto* context, auto* out, auto done) { fleet_->async()->ListBackends(context, &request, out, done); });
}

}  // namespace attnfleet::client
