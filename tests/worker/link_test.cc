#include "worker/link.h"

#include <gmock/gmock.h>

#include <optional>
#include <vector>

#include "fake_coordinator.h"
#include "support.h"

namespace attnfleet::worker {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using Session = FakeCoordinator::Session;

class LinkTest : public testing::Test {
 protected:
  LinkTest() {
    options_.server = "unix:" + socket_;
    options_.first_backoff = milliseconds(5);
    options_.longest_backoff = milliseconds(50);
  }

  void StartCoordinator(
      std::function<void(Session&)> on_stream = [](Session& session) { session.Welcome(); }, bool reading = true) {
    coordinator_ = std::make_unique<FakeCoordinator>(socket_, std::move(on_stream), reading);
  }

  void Connect() {
    link_.emplace(*loop_, options_,
                  Link::Callbacks{.hello =
                                      [this] {
                                        v1::WorkerHello hello;
                                        hello.mutable_worker()->set_name("w1");
                                        hello.add_active()->set_attempt(++hellos_);
                                        return hello;
                                      },
                                  .draining = [] { return true; },
                                  .welcomed = [this](const v1::Welcome&) { ++welcomes_; },
                                  .command = [this](const v1::WorkerCommand& command) { commands_.push_back(command); },
                                  .refused = [this](const absl::Status& status) { refused_ = status; }});
    link_->Connect();
  }

  bool Until(const std::function<bool()>& condition) { return RunUntil(*loop_, condition); }

  const ScratchDirectory scratch_;
  const std::string socket_ = scratch_ / "socket";
  std::unique_ptr<FakeCoordinator> coordinator_;
  const std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  LinkOptions options_;
  uint32_t hellos_ = 0;
  int welcomes_ = 0;
  std::vector<v1::WorkerCommand> commands_;
  std::optional<absl::Status> refused_;
  std::optional<Link> link_;
};

TEST_F(LinkTest, HelloComesFirstAndOnceThenHeartbeats) {
  StartCoordinator([](Session& session) { session.Welcome(/*heartbeat_interval_ms=*/10); });
  Connect();
  ASSERT_TRUE(Until([&] { return welcomes_ == 1 && coordinator_->last().events().size() >= 4; }));
  EXPECT_TRUE(link_->connected());
  const std::vector<v1::WorkerEvent> events = coordinator_->last().events();
  EXPECT_EQ(events[0].hello().worker().name(), "w1");
  for (size_t i = 1; i < events.size(); ++i) {
    EXPECT_TRUE(events[i].has_heartbeat());
    EXPECT_TRUE(events[i].heartbeat().draining());
  }
}

TEST_F(LinkTest, OfSeveralServersTheOneThatWelcomesIsFound) {
  options_.server = "unix:" + (scratch_ / "nobody") + ",unix:" + (scratch_ / "silent") + ",unix:" + socket_;
  options_.several_welcome_limit = milliseconds(100);
  const FakeCoordinator silent(scratch_ / "silent", [](Session&) {});  // as one that hangs
  StartCoordinator();
  Connect();
  ASSERT_TRUE(Until([&] { return welcomes_ == 1; }));
  coordinator_->last().End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "restarting"));
  ASSERT_TRUE(Until([&] { return welcomes_ == 2; })) << "it goes on in turn and finds it again";
}

TEST_F(LinkTest, CommandsArriveInOrder) {
  StartCoordinator();
  Connect();
  ASSERT_TRUE(Until([&] { return welcomes_ == 1; }));
  constexpr uint32_t kCount = 2000;  // more than the stream keeps unread
  for (uint32_t i = 0; i < kCount; ++i) {
    v1::WorkerCommand command;
    command.mutable_stop()->set_attempt(i);
    coordinator_->last().Send(command);
  }
  ASSERT_TRUE(Until([&] { return commands_.size() == kCount; }));
  for (uint32_t i = 0; i < kCount; ++i) EXPECT_EQ(commands_[i].stop().attempt(), i);
}

TEST_F(LinkTest, CommandsOfABatchArriveOneByOne) {
  StartCoordinator();
  Connect();
  ASSERT_TRUE(Until([&] { return welcomes_ == 1; }));
  v1::WorkerCommand batch;
  for (uint32_t i = 0; i < 3; ++i) batch.mutable_batch()->add_commands()->mutable_stop()->set_attempt(i);
  v1::WorkerCommand single;
  single.mutable_stop()->set_attempt(3);
  coordinator_->last().Send(batch);
  coordinator_->last().Send(single);
  ASSERT_TRUE(Until([&] { return commands_.size() == 4; }));
  for (uint32_t i = 0; i < 4; ++i) EXPECT_EQ(commands_[i].stop().attempt(), i);
}

TEST_F(LinkTest, ReconnectsAtOnceWithANewHello) {
  options_.first_backoff = options_.longest_backoff = kPatience * 2;
  StartCoordinator();
  Connect();
  link_->Reconnect();  // before it is welcomed
  ASSERT_TRUE(Until([&] { return welcomes_ == 1; }));
  EXPECT_EQ(hellos_, 2U);
  link_->Reconnect();
  EXPECT_FALSE(link_->connected());
  link_->Reconnect();  // changes nothing
  ASSERT_TRUE(Until([&] { return welcomes_ == 2; }));
  EXPECT_EQ(hellos_, 3U);
  EXPECT_EQ(coordinator_->last().events()[0].hello().active(0).attempt(), 3U);
}

TEST_F(LinkTest, ConnectsAgainWithANewHelloWhenTheStreamEnds) {
  StartCoordinator();
  Connect();
  ASSERT_TRUE(Until([&] { return welcomes_ == 1; }));
  for (const grpc::Status& status : {grpc::Status::OK, grpc::Status(grpc::StatusCode::INTERNAL, "a bug")}) {
    const int before = welcomes_;
    coordinator_->last().End(status);
    ASSERT_TRUE(Until([&] { return welcomes_ == before + 1; }));
  }
  const std::vector<v1::WorkerEvent> events = coordinator_->session(2).events();
  EXPECT_EQ(events[0].hello().active(0).attempt(), 3U) << "the third hello, with the state of then";
  EXPECT_FALSE(refused_.has_value());
}

TEST_F(LinkTest, ConnectsAgainWhenTheCoordinatorIsRestarted) {
  StartCoordinator();
  Connect();
  ASSERT_TRUE(Until([&] { return welcomes_ == 1; }));
  coordinator_.reset();
  ASSERT_TRUE(Until([&] { return !link_->connected(); }));
  StartCoordinator();
  EXPECT_TRUE(Until([&] { return welcomes_ == 2 && link_->connected(); }));
}

TEST_F(LinkTest, TriesAreSpacedByAGrowingBackoff) {
  Connect();
  ASSERT_TRUE(Until([&] { return hellos_ >= 8; }));
  const uint32_t before = hellos_;
  EXPECT_FALSE(RunUntil(
      *loop_, [] { return false; }, milliseconds(500)));
  // At its longest each takes 25 to 50 ms.
  EXPECT_GE(hellos_ - before, 2U);
  EXPECT_LE(hellos_ - before, 21U);
}

TEST_F(LinkTest, StreamWithoutWelcomeIsAbandoned) {
  options_.welcome_limit = milliseconds(50);
  StartCoordinator(nullptr);
  Connect();
  ASSERT_TRUE(Until([&] { return coordinator_->sessions() >= 2; }));
  EXPECT_TRUE(Until([&] { return coordinator_->session(0).done(); }));
  EXPECT_EQ(welcomes_, 0);
  coordinator_->last().Welcome();
  // Whichever stream is current when the welcome comes.
  EXPECT_TRUE(Until([&] {
    coordinator_->last().Welcome();
    return welcomes_ >= 1;
  }));
}

TEST_F(LinkTest, RefusalEndsIt) {
  for (const grpc::StatusCode code : {grpc::StatusCode::INVALID_ARGUMENT, grpc::StatusCode::FAILED_PRECONDITION}) {
    refused_.reset();
    StartCoordinator([code](Session& session) { session.End(grpc::Status(code, "worker.labels: no")); });
    Connect();
    ASSERT_TRUE(Until([&] { return refused_.has_value(); }));
    EXPECT_EQ(static_cast<int>(refused_->code()), static_cast<int>(code));
    EXPECT_THAT(std::string(refused_->message()), HasSubstr("worker.labels: no"));
    EXPECT_EQ(coordinator_->sessions(), 1U);
    link_.reset();
    coordinator_.reset();
  }
}

TEST_F(LinkTest, TakenNameIsWaitedOut) {
  StartCoordinator([this](Session& session) {
    if (coordinator_ == nullptr || coordinator_->sessions() < 4) {
      session.End(grpc::Status(grpc::StatusCode::ALREADY_EXISTS, "w1 is connected"));
    } else {
      session.Welcome();
    }
  });
  Connect();
  EXPECT_TRUE(Until([&] { return welcomes_ == 1; }));
  EXPECT_FALSE(refused_.has_value());
}

TEST_F(LinkTest, NameThatStaysTakenEndsIt) {
  options_.name_taken_limit = milliseconds(100);
  StartCoordinator(
      [](Session& session) { session.End(grpc::Status(grpc::StatusCode::ALREADY_EXISTS, "w1 is connected")); });
  Connect();
  ASSERT_TRUE(Until([&] { return refused_.has_value(); }));
  EXPECT_TRUE(absl::IsAlreadyExists(*refused_));
  EXPECT_GE(coordinator_->sessions(), 2U);
}

TEST_F(LinkTest, ConnectLimitEndsItIfNobodyAnswers) {
  options_.connect_limit = milliseconds(100);
  Connect();
  ASSERT_TRUE(Until([&] { return refused_.has_value(); }));
  EXPECT_TRUE(absl::IsUnavailable(*refused_));
  EXPECT_THAT(std::string(refused_->message()), HasSubstr(socket_));
}

TEST_F(LinkTest, ConnectLimitIsForTheFirstWelcomeAlone) {
  options_.connect_limit = milliseconds(500);
  StartCoordinator();
  Connect();
  ASSERT_TRUE(Until([&] { return welcomes_ == 1; }));
  coordinator_.reset();
  EXPECT_FALSE(RunUntil(
      *loop_, [&] { return refused_.has_value(); }, milliseconds(700)));
}

TEST_F(LinkTest, CloseDeliversWhatIsQueuedAndWaitsForTheCoordinator) {
  StartCoordinator();
  Connect();
  ASSERT_TRUE(Until([&] { return welcomes_ == 1; }));
  for (uint32_t i = 0; i < 100; ++i) {
    v1::WorkerEvent event;
    event.mutable_report()->set_attempt(i);
    link_->Send(event);
  }
  bool closed = false;
  link_->Close([&] { closed = true; });
  ASSERT_TRUE(Until([&] { return closed; }));
  EXPECT_TRUE(coordinator_->last().half_closed());
  EXPECT_EQ(coordinator_->last().events(v1::WorkerEvent::kReport).size(), 100U);
  EXPECT_FALSE(RunUntil(
      *loop_, [&] { return coordinator_->sessions() > 1; }, milliseconds(100)));
}

TEST_F(LinkTest, CloseDeliversAllToACoordinatorThatIsSlowToRead) {
  StartCoordinator([](Session& session) { session.Welcome(/*heartbeat_interval_ms=*/10); }, /*reading=*/false);
  Connect();
  ASSERT_TRUE(Until([&] { return welcomes_ == 1; }));
  v1::WorkerEvent event;
  event.mutable_report()->mutable_result()->set_reason(std::string(1 << 20, 'x'));
  for (int i = 0; i < 20; ++i) link_->Send(event);
  bool closed = false;
  link_->Close([&] { closed = true; });
  link_->Send(event);  // too late
  RunUntil(
      *loop_, [] { return false; }, milliseconds(100));  // some heartbeats long
  coordinator_->last().Start(/*reading=*/true);
  ASSERT_TRUE(Until([&] { return closed; }));
  EXPECT_EQ(coordinator_->last().events(v1::WorkerEvent::kReport).size(), 20U);
}

TEST_F(LinkTest, CloseWithoutAConnectionIsImmediate) {
  Connect();
  bool closed = false;
  link_->Close([&] { closed = true; });
  EXPECT_TRUE(closed);
}

TEST_F(LinkTest, CanBeDestroyedAtAnyMoment) {
  StartCoordinator([](Session& session) { session.Welcome(1); });
  for (int microseconds = 0; microseconds < 20'000; microseconds += 1'000) {
    Connect();
    RunUntil(
        *loop_, [] { return false; }, milliseconds(microseconds / 1000));
    link_.reset();
  }
}

}  // namespace
}  // namespace attnfleet::worker
