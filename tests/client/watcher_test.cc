#include "client/watcher.h"

#include <gmock/gmock.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <poll.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "attnfleet/v1/service.grpc.pb.h"

namespace attnfleet::client {
namespace {

constexpr absl::Duration kPatience = absl::Milliseconds(100);

// Says something once, is silent for longer than the watcher's patience, goes away, and ends the second stream well.
class QuietService : public v1::BenchmarkService::Service {
 public:
  grpc::Status Watch(grpc::ServerContext*, const v1::WatchRequest*,
                     grpc::ServerWriter<v1::WatchResponse>* writer) override {
    if (++streams_ > 1) return grpc::Status::OK;
    writer->Write({});
    std::this_thread::sleep_for(absl::ToChronoMilliseconds(5 * kPatience));
    return {grpc::StatusCode::UNAVAILABLE, "restarting"};
  }

  int streams() const { return streams_; }

 private:
  std::atomic<int> streams_ = 0;
};

absl::Status WaitForEnd(Watcher& watcher) {
  for (int i = 0; i < 100; ++i) {
    pollfd entry{watcher.descriptor(), POLLIN, 0};
    poll(&entry, 1, 100);
    watcher.Take();
    if (const std::optional<absl::Status> end = watcher.End()) return *end;
  }
  return absl::DeadlineExceededError("it never ended");
}

v1::WatchRequest WatchRequest() {
  v1::WatchRequest request;
  request.set_id(1);
  return request;
}

TEST(Watcher, SilenceOnALivingStreamIsContact) {
  QuietService service;
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  const auto leader =
      std::make_shared<LeaderChannel>("unix:x", [&](const std::string&) { return server->InProcessChannel({}); });
  Watcher watcher(leader, WatchRequest(), kPatience);
  EXPECT_EQ(WaitForEnd(watcher), absl::OkStatus());
  EXPECT_EQ(service.streams(), 2);
}

// Its first message is longer than what the channel takes.
class LongService : public v1::BenchmarkService::Service {
 public:
  grpc::Status Watch(grpc::ServerContext*, const v1::WatchRequest*,
                     grpc::ServerWriter<v1::WatchResponse>* writer) override {
    v1::WatchResponse response;
    response.mutable_benchmark()->set_cancel_reason(std::string(5 << 20, '.'));
    writer->Write(response);
    return grpc::Status::OK;
  }
};

TEST(Watcher, EndsAtOnceWhenAnAnswerIsTooLarge) {
  for (const bool by_the_sender : {true, false}) {
    LongService service;
    grpc::ServerBuilder builder;
    builder.RegisterService(&service);
    builder.SetMaxSendMessageSize(by_the_sender ? 1 << 20 : -1);
    const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    const auto leader =
        std::make_shared<LeaderChannel>("unix:x", [&](const std::string&) { return server->InProcessChannel({}); });
    Watcher watcher(leader, WatchRequest(), absl::InfiniteDuration());
    const absl::Status end = WaitForEnd(watcher);
    EXPECT_EQ(end.code(), absl::StatusCode::kResourceExhausted) << end;
    EXPECT_THAT(std::string(end.message()), testing::HasSubstr(by_the_sender ? "Sent message larger than max"
                                                                             : "Received message larger than max"));
  }
}

TEST(Watcher, GivesUpOnAServerThatIsNotThere) {
  Watcher watcher(std::make_shared<LeaderChannel>("unix:/nonexistent/attnfleet.sock"), WatchRequest(), kPatience);
  EXPECT_EQ(WaitForEnd(watcher).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace attnfleet::client
