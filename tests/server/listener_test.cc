#include "server/listener.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "attnfleet/v1/service.grpc.pb.h"

namespace attnfleet::server {
namespace {

using testing::HasSubstr;

// One message to a method and the first one back, as bytes: no stubs of gRPC's own services are packaged.
std::string Call(const std::string& address, const std::string& method, const std::string& request) {
  grpc::GenericStub stub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  grpc::CompletionQueue queue;
  void* tag = nullptr;
  bool ok = false;
  const auto call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(nullptr);
  if (!queue.Next(&tag, &ok) || !ok) return "no call";
  const grpc::Slice slice(request);
  call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
  if (!queue.Next(&tag, &ok) || !ok) return "not written";
  grpc::ByteBuffer response;
  call->Read(&response, nullptr);
  if (!queue.Next(&tag, &ok)) return "no answer";
  grpc::Slice bytes;
  const std::string text = ok && response.DumpToSingleSlice(&bytes).ok()
                               ? std::string(reinterpret_cast<const char*>(bytes.begin()), bytes.size())
                               : "no message";
  grpc::Status status;
  call->Finish(&status, nullptr);
  queue.Next(&tag, &ok);
  return status.ok() ? text : absl::StrCat(text, "; ", status.error_message());
}

class ListenerTest : public testing::Test {
 protected:
  v1::FleetService::Service fleet_;
  absl::StatusOr<Listener> listener_ = Listen({.address = "127.0.0.1:0"}, {&fleet_});
};

TEST_F(ListenerTest, HealthServiceSaysServing) {
  ASSERT_TRUE(listener_.ok()) << listener_.status();
  // HealthCheckResponse { status: SERVING }
  EXPECT_EQ(Call(listener_->address, "/grpc.health.v1.Health/Check", ""), "\x08\x01");
}

TEST_F(ListenerTest, ReflectionListsTheServices) {
  ASSERT_TRUE(listener_.ok()) << listener_.status();
  const std::string list_services("\x3a\x00", 2);  // ServerReflectionRequest { list_services: "" }
  EXPECT_THAT(Call(listener_->address, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", list_services),
              HasSubstr("attnfleet.v1.FleetService"));
}

TEST_F(ListenerTest, AddressOfAnotherServerIsRefused) {
  ASSERT_TRUE(listener_.ok()) << listener_.status();
  const absl::StatusOr<Listener> second = Listen({.address = listener_->address}, {});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(listener_->address));
}

}  // namespace
}  // namespace attnfleet::server
