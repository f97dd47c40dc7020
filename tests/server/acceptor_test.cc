#include "server/acceptor.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>

#include "absl/strings/numbers.h"

namespace attnfleet::server {
namespace {

// Takes connections in gRPC's place.
class Holder : public grpc::experimental::ExternalConnectionAcceptor {
 public:
  struct Held {
    std::mutex mutex;
    std::vector<int> descriptors;
  };
  explicit Holder(std::shared_ptr<Held> held) : held_(std::move(held)) {}
  void HandleNewConnection(NewConnectionParameters* parameters) override {
    const std::lock_guard<std::mutex> lock(held_->mutex);
    held_->descriptors.push_back(parameters->fd);
  }

 private:
  const std::shared_ptr<Held> held_;
};

class AcceptorTest : public testing::Test {
 protected:
  void Start(ConnectionLimits limits) {
    auto acceptor = Acceptor::Bind("127.0.0.1:0", limits);
    ASSERT_TRUE(acceptor.ok()) << acceptor.status();
    acceptor_ = *std::move(acceptor);
    acceptor_->Start(std::make_unique<Holder>(held_));
  }

  void TearDown() override {
    acceptor_.reset();
    for (const int descriptor : clients_) close(descriptor);
    for (const int descriptor : held_->descriptors) close(descriptor);
  }

  // From 127.0.0.`host`.
  int Connect(int host) {
    const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    clients_.push_back(descriptor);
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(0x7f000000U + static_cast<uint32_t>(host));
    EXPECT_EQ(bind(descriptor, reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
    int port = 0;
    EXPECT_TRUE(absl::SimpleAtoi(acceptor_->address().substr(acceptor_->address().rfind(':') + 1), &port));
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    name.sin_port = htons(static_cast<uint16_t>(port));
    EXPECT_EQ(connect(descriptor, reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
    return descriptor;
  }

  // Whether the acceptor has closed the connection, which it does soon if at all.
  static bool IsClosed(int descriptor, std::chrono::milliseconds limit) {
    timeval time{};
    time.tv_sec = limit.count() / 1000;
    time.tv_usec = static_cast<suseconds_t>(limit.count() % 1000 * 1000);
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    char byte = 0;
    const ssize_t size = recv(descriptor, &byte, 1, 0);
    return size == 0 || (size < 0 && errno == ECONNRESET);
  }

  size_t Held() {
    const std::lock_guard<std::mutex> lock(held_->mutex);
    return held_->descriptors.size();
  }

  // Waits for `count` connections to be handed over.
  bool HeldAre(size_t count) {
    for (int i = 0; i < 1000 && Held() < count; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return Held() == count;
  }

  const std::shared_ptr<Holder::Held> held_ = std::make_shared<Holder::Held>();
  std::unique_ptr<Acceptor> acceptor_;
  std::vector<int> clients_;
};

constexpr std::chrono::seconds kPatience{20};

TEST_F(AcceptorTest, OneAddressCannotTakeWhatOthersNeed) {
  Start({.total = 10, .per_address = 2});
  Connect(2);
  Connect(2);
  ASSERT_TRUE(HeldAre(2));
  EXPECT_TRUE(IsClosed(Connect(2), kPatience));
  Connect(3);
  EXPECT_TRUE(HeldAre(3));
}

TEST_F(AcceptorTest, AllOfThemTogetherAreBounded) {
  Start({.total = 2, .per_address = 2});
  Connect(2);
  Connect(3);
  ASSERT_TRUE(HeldAre(2));
  EXPECT_TRUE(IsClosed(Connect(4), kPatience));
}

TEST_F(AcceptorTest, WhatIsClosedMakesRoom) {
  Start({.total = 2, .per_address = 1});
  Connect(2);
  ASSERT_TRUE(HeldAre(1));
  ASSERT_TRUE(IsClosed(Connect(2), kPatience));
  close(held_->descriptors.front());  // as gRPC would
  held_->descriptors.clear();
  for (int i = 0; i < 200 && Held() == 0; ++i) {
    Connect(2);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_EQ(Held(), 1);
}

TEST_F(AcceptorTest, AnAddressThatHasSentTooMuchLosesItsHeaviestConnection) {
  Start({.total = 10, .per_address = 10, .bytes_per_address = 100'000});
  const int light = Connect(2);
  const int heavy = Connect(2);
  const int other = Connect(3);
  ASSERT_TRUE(HeldAre(3));
  const std::string data(70'000, 'x');
  EXPECT_EQ(send(light, data.data(), 40'000, 0), 40'000);
  EXPECT_EQ(send(heavy, data.data(), data.size(), 0), 70'000);
  EXPECT_EQ(send(other, data.data(), data.size(), 0), 70'000);
  EXPECT_TRUE(IsClosed(heavy, kPatience));
  EXPECT_FALSE(IsClosed(light, std::chrono::milliseconds(1)));
  EXPECT_FALSE(IsClosed(other, std::chrono::milliseconds(1)));
}

TEST_F(AcceptorTest, AConnectionThatSendsSlowlyStays) {
  Start({.total = 10, .per_address = 10, .bytes_per_address = 100'000, .window = std::chrono::milliseconds(50)});
  const int slow = Connect(2);
  ASSERT_TRUE(HeldAre(1));
  const std::string data(30'000, 'x');
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(send(slow, data.data(), data.size(), MSG_NOSIGNAL), 30'000);
    EXPECT_FALSE(IsClosed(slow, std::chrono::milliseconds(600)));  // some windows later
  }
}

TEST_F(AcceptorTest, APortThatIsTakenIsNamed) {
  Start({});
  const absl::Status second = Acceptor::Bind(acceptor_->address(), {}).status();
  EXPECT_TRUE(absl::IsUnavailable(second));
  EXPECT_THAT(std::string(second.message()), testing::HasSubstr(acceptor_->address()));
}

TEST_F(AcceptorTest, LocalhostIsOnePortOnEveryFamily) {
  const auto acceptor = Acceptor::Bind("localhost:0", {});
  ASSERT_TRUE(acceptor.ok()) << acceptor.status();
  EXPECT_THAT((*acceptor)->address(), testing::StartsWith("localhost:"));
}

}  // namespace
}  // namespace attnfleet::server
