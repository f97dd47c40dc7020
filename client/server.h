#ifndef ATTNFLEET_CLIENT_SERVER_H_
#define ATTNFLEET_CLIENT_SERVER_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attnfleet/v1/service.grpc.pb.h"
#include "client/leader_channel.h"
#include "proto/credentials.h"
#include "proto/support/stop_signals.h"

namespace attnfleet::client {

// The coordinator as the client calls it. Every call ends within the timeout: while the server cannot be reached, or
// says that it cannot answer at present, it is tried again, so that a restart goes unnoticed; of several servers the
// one that leads is found. UNAVAILABLE names the address and says which of the two it was; CANCELLED means that a stop
// signal came.
class Server {
 public:
  // `address` may name several ("a:1,b:2"). `signals` must outlive it. `tls`: none for plain text.
  Server(std::string address, absl::Duration timeout, StopSignals& signals, const TlsFiles& tls = {});

  // Another submit with the same `request_id` gives the benchmark of the first.
  absl::StatusOr<v1::Benchmark> Submit(const v1::BenchmarkSpec& spec, const std::string& request_id);
  absl::StatusOr<v1::Benchmark> Get(uint64_t id, bool include_contaminated = false);  // 0 = the newest
  // `patience`, here and below: less than the timeout, for an answer that is not needed.
  absl::StatusOr<v1::ListResponse> List(int limit, uint64_t before_id,
                                        absl::Duration patience = absl::InfiniteDuration());
  absl::StatusOr<v1::Benchmark> Cancel(uint64_t id, const std::string& reason);
  absl::StatusOr<v1::Benchmark> Pause(uint64_t id);
  absl::StatusOr<v1::Benchmark> Resume(uint64_t id);
  absl::StatusOr<v1::ExplainResponse> Explain(uint64_t id, absl::Duration patience = absl::InfiniteDuration());
  absl::StatusOr<v1::ListWorkersResponse> ListWorkers();
  absl::StatusOr<v1::WorkerStatus> SetDrained(const std::string& worker, bool drained);
  absl::StatusOr<v1::ListBackendsResponse> ListBackends();

  const std::string& address() const { return address_; }
  const std::shared_ptr<LeaderChannel>& leader() const { return leader_; }

 private:
  void UseChannel();
  // `start` begins one try: (context, response, done).
  template <typename Response>
  absl::StatusOr<Response> Call(
      const std::function<void(grpc::ClientContext*, Response*, std::function<void(grpc::Status)>)>& start,
      absl::Duration patience = absl::InfiniteDuration());

  const std::string address_;
  const absl::Duration timeout_;
  const bool secured_;  // by TLS
  StopSignals& signals_;
  const std::shared_ptr<LeaderChannel> leader_;
  // Of the try that is under way.
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::BenchmarkService::Stub> benchmarks_;
  std::unique_ptr<v1::FleetService::Stub> fleet_;
};

// A request id (proto/request_id.h) that nobody else has.
std::string RandomRequestId();

// gRPC's words for a failed connection, without what is no use to a person.
std::string ConnectionProblem(const std::string& grpc_message);

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_SERVER_H_
