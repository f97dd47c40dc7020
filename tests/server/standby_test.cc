#include "server/standby.h"

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/health_check_service_interface.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

#include "attnfleet/v1/service.grpc.pb.h"
#include "attnfleet/v1/worker.grpc.pb.h"
#include "proto/address.h"
#include "proto/server_list.h"
#include "server/listener.h"

namespace attnfleet::server {
namespace {

using testing::HasSubstr;

class StandbyTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(listener_.status(), absl::OkStatus());
    listener_->server->GetHealthCheckService()->SetServingStatus(false);
    channel_ = MakeChannel(listener_->address);
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  }

  std::string leader_ = "10.0.0.5:7600";
  StandbyService service_{[this] { return leader_; }};
  absl::StatusOr<Listener> listener_ = Listen("127.0.0.1:0", {}, {}, &service_);
  std::shared_ptr<grpc::Channel> channel_;
  grpc::ClientContext context_;
};

TEST_F(StandbyTest, CallsAreRefusedWithTheLeadersAddress) {
  v1::ListResponse response;
  const grpc::Status status = v1::BenchmarkService::NewStub(channel_)->List(&context_, {}, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("10.0.0.5:7600 leads"));
  EXPECT_EQ(LeaderNamed(context_), "10.0.0.5:7600");
}

TEST_F(StandbyTest, StreamsAreRefusedToo) {
  const auto stub = v1::WorkerService::NewStub(channel_);
  const auto stream = stub->Connect(&context_);
  v1::WorkerCommand command;
  EXPECT_FALSE(stream->Read(&command));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(LeaderNamed(context_), "10.0.0.5:7600");
}

TEST_F(StandbyTest, WithoutALeaderNoneIsNamed) {
  leader_ = "";
  v1::ListResponse response;
  const grpc::Status status = v1::BenchmarkService::NewStub(channel_)->List(&context_, {}, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(LeaderNamed(context_), "");
}

TEST_F(StandbyTest, HealthServiceSaysNotServing) {
  grpc::GenericStub stub(channel_);
  const grpc::Slice empty;
  const grpc::ByteBuffer request(&empty, 1);
  grpc::ByteBuffer response;
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareUnaryCall(&context_, "/grpc.health.v1.Health/Check", request, &queue);
  call->StartCall();
  grpc::Status status;
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  ASSERT_TRUE(queue.Next(&tag, &ok));
  ASSERT_TRUE(status.ok()) << status.error_message();
  grpc::Slice bytes;
  ASSERT_TRUE(response.DumpToSingleSlice(&bytes).ok());
  // HealthCheckResponse { status: NOT_SERVING }
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.begin()), bytes.size()), "\x08\x02");
}

}  // namespace
}  // namespace attnfleet::server
