#include "worker/worker.h"

#include <gmock/gmock.h>

#include <csignal>
#include <optional>
#include <vector>

#include "absl/strings/numbers.h"
#include "fake_coordinator.h"
#include "support.h"

namespace attnfleet::worker {
namespace {

using std::chrono::milliseconds;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using Session = FakeCoordinator::Session;

constexpr auto kReport = v1::WorkerEvent::kReport;
constexpr auto kProgress = v1::WorkerEvent::kProgress;

// A worker with two CPU slots and the trainer double, and a coordinator that welcomes it.
class WorkerTest : public testing::Test {
 protected:
  ~WorkerTest() override { StopWorker(); }

  void StartCoordinator() {
    coordinator_ = std::make_unique<FakeCoordinator>(socket_, [](Session& session) { session.Welcome(); });
  }

  void StartWorker(const std::string& behaviour = "") {
    behaviour_.emplace("ATTNFLEET_DOUBLE", behaviour);
    log_.emplace("ATTNFLEET_DOUBLE_LOG", scratch_ / "log");
    WorkerOptions options;
    options.info.set_name("w1");
    *options.info.add_slots() = CpuSlot("cpu0");
    *options.info.add_slots() = CpuSlot("cpu1");
    options.trainer = DoubleProgram();
    options.capabilities = DoubleCapabilities();
    options.link.server = "unix:" + socket_;
    options.link.first_backoff = milliseconds(5);
    options.link.longest_backoff = milliseconds(20);
    options.drain_timeout = drain_timeout_;
    options.ack_limit = ack_limit_;
    options.kill_limit = kill_limit_;
    worker_.emplace(*loop_, options, *Spool::Open(scratch_ / "spool"),
                    Worker::Callbacks{.ready = [this] { ++ready_; },
                                      .ended = [this](const absl::Status& status) { ended_ = status; }});
    worker_->Start();
  }

  void StopWorker() {
    worker_.reset();
    behaviour_.reset();
    log_.reset();
  }

  void StartBoth(const std::string& behaviour = "") {
    StartCoordinator();
    StartWorker(behaviour);
    ASSERT_TRUE(Until([&] { return ready_ == 1; }));
  }

  Session& session() { return coordinator_->last(); }

  void SendStart(const v1::StartRun& start) {
    v1::WorkerCommand command;
    *command.mutable_start() = start;
    session().Send(command);
  }

  void SendStop(uint32_t job_index, uint32_t attempt) {
    v1::WorkerCommand command;
    *command.mutable_stop()->mutable_run() = MakeStart(job_index, attempt, "", "").run();
    command.mutable_stop()->set_attempt(attempt);
    command.mutable_stop()->set_reason("cancelled");
    session().Send(command);
  }

  bool Until(const std::function<bool()>& condition) { return RunUntil(*loop_, condition); }
  // Events of a kind on the current stream.
  bool UntilEvents(v1::WorkerEvent::EventCase kind, size_t count) {
    return Until([&] { return coordinator_->sessions() > 0 && session().events(kind).size() >= count; });
  }
  // The report of a run, on the current stream.
  v1::RunReport UntilReport(uint32_t job_index) {
    v1::RunReport found;
    EXPECT_TRUE(Until([&] {
      for (const v1::WorkerEvent& event : session().events(kReport)) {
        if (event.report().run().job_index() == job_index) found = event.report();
      }
      return found.has_run();
    })) << job_index;
    return found;
  }
  // A new stream, and what it began with.
  v1::WorkerHello NextHello(size_t sessions) {
    EXPECT_TRUE(Until([&] { return coordinator_->sessions() == sessions && !session().events().empty(); }));
    return session().events()[0].hello();
  }
  // Long enough for something wrong to show.
  void Linger() {
    RunUntil(
        *loop_, [] { return false; }, milliseconds(100));
  }

  std::vector<std::string> TrainerStarts() { return ReadLines(scratch_ / "log"); }
  pid_t TrainerPid(size_t index) {
    const std::string line = TrainerStarts().at(index);
    int pid = 0;
    EXPECT_TRUE(absl::SimpleAtoi(line.substr(0, line.find(' ')), &pid));
    return pid;
  }

  const ScratchDirectory scratch_;
  const std::string socket_ = scratch_ / "socket";
  const std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  milliseconds drain_timeout_{0};
  milliseconds ack_limit_{5'000};
  milliseconds kill_limit_ = kKillLimit;
  std::unique_ptr<FakeCoordinator> coordinator_;
  std::optional<ScopedEnvironment> behaviour_;
  std::optional<ScopedEnvironment> log_;
  int ready_ = 0;
  std::optional<absl::Status> ended_;
  std::optional<Worker> worker_;
};

TEST_F(WorkerTest, RunsAndReports) {
  StartBoth();
  SendStart(MakeStart(1, 1, "cpu1", "sdpa"));
  ASSERT_TRUE(UntilEvents(kReport, 1));
  const v1::RunReport report = session().events(kReport)[0].report();
  EXPECT_EQ(report.run().job_index(), 1U);
  EXPECT_EQ(report.attempt(), 1U);
  EXPECT_EQ(report.slot(), "cpu1");
  EXPECT_EQ(report.result().outcome(), v1::OUTCOME_MEASURED);
}

TEST_F(WorkerTest, RelaysProgress) {
  StartBoth("*:slow=0.5");
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  ASSERT_TRUE(UntilEvents(kProgress, 2));
  ASSERT_TRUE(UntilEvents(kReport, 1));
}

TEST_F(WorkerTest, SendsAResultAgainUntilItIsAcknowledged) {
  StartBoth();
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  ASSERT_TRUE(UntilEvents(kReport, 1));
  const v1::RunReport report = session().events(kReport)[0].report();
  for (size_t streams = 2; streams <= 3; ++streams) {
    session().End(grpc::Status::OK);
    ASSERT_TRUE(Until([&] { return coordinator_->sessions() == streams && !session().events().empty(); }));
    const v1::WorkerHello hello = session().events()[0].hello();
    EXPECT_THAT(hello.active(), IsEmpty());
    ASSERT_EQ(hello.unacknowledged_size(), 1);
    EXPECT_EQ(hello.unacknowledged(0).SerializeAsString(), report.SerializeAsString());
  }
  session().Acknowledge(report);
  ASSERT_TRUE(Until([&] { return Spool::Open(scratch_ / "spool").value()->reports().empty(); }));
  session().End(grpc::Status::OK);
  ASSERT_TRUE(Until([&] { return coordinator_->sessions() == 4 && !session().events().empty(); }));
  EXPECT_THAT(session().events()[0].hello().unacknowledged(), IsEmpty());
}

TEST_F(WorkerTest, ResultOfAnEarlierProcessIsInTheHello) {
  StartBoth();
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  ASSERT_TRUE(UntilEvents(kReport, 1));
  StopWorker();
  StartWorker();
  ASSERT_TRUE(Until([&] { return coordinator_->sessions() == 2 && !session().events().empty(); }));
  EXPECT_EQ(session().events()[0].hello().unacknowledged_size(), 1);
}

TEST_F(WorkerTest, ResultThatAHelloHasNoRoomForIsActiveInItAndFollows) {
  {
    const std::unique_ptr<Spool> spool = *Spool::Open(scratch_ / "spool");
    for (const uint32_t job : {1u, 2u, 3u}) {
      v1::RunReport report;
      *report.mutable_run() = MakeStart(job, 1, "", "").run();
      report.set_attempt(1);
      report.set_slot("cpu1");
      report.mutable_result()->set_outcome(v1::OUTCOME_MEASURED);
      report.mutable_result()->set_reason(std::string(6 << 20, 'x'));
      spool->Add(report);
    }
  }
  StartBoth();
  const v1::WorkerHello hello = NextHello(1);
  ASSERT_EQ(hello.unacknowledged_size(), 2);
  EXPECT_EQ(hello.unacknowledged(1).run().job_index(), 2U);
  ASSERT_EQ(hello.active_size(), 1) << "else its run is lost to the coordinator";
  EXPECT_EQ(hello.active(0).run().job_index(), 3U);
  EXPECT_EQ(hello.active(0).attempt(), 1U);
  EXPECT_EQ(hello.active(0).slot(), "cpu1");
  SendStop(3, 1);  // as a coordinator says that has given it to others
  const v1::RunReport report = UntilReport(3);
  for (const v1::RunReport& one : hello.unacknowledged()) session().Acknowledge(one);
  session().Acknowledge(report);
  EXPECT_TRUE(Until([&] { return Spool::Open(scratch_ / "spool").value()->reports().empty(); }));
}

TEST_F(WorkerTest, ResultMadeWhileTheCoordinatorIsAwayIsDelivered) {
  StartBoth("*:slow=0.3");
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  ASSERT_TRUE(UntilEvents(kProgress, 1));
  coordinator_.reset();
  ASSERT_TRUE(Until([&] { return Spool::Open(scratch_ / "spool").value()->reports().size() == 1; }));
  StartCoordinator();
  ASSERT_TRUE(Until([&] { return coordinator_->sessions() > 0 && !session().events().empty(); }));
  EXPECT_EQ(session().events()[0].hello().unacknowledged_size(), 1);
  EXPECT_EQ(TrainerStarts().size(), 1U);
}

TEST_F(WorkerTest, HelloTellsWhatRuns) {
  StartBoth("*:hang");
  SendStart(MakeStart(1, 3, "cpu1", "eager"));
  ASSERT_TRUE(UntilEvents(kProgress, 1));
  session().End(grpc::Status::OK);
  ASSERT_TRUE(Until([&] { return coordinator_->sessions() == 2 && !session().events().empty(); }));
  const v1::WorkerHello hello = session().events()[0].hello();
  ASSERT_EQ(hello.active_size(), 1);
  EXPECT_EQ(hello.active(0).run().job_index(), 1U);
  EXPECT_EQ(hello.active(0).attempt(), 3U);
  EXPECT_EQ(hello.active(0).slot(), "cpu1");
  EXPECT_TRUE(IsRunning(TrainerPid(0)));
}

TEST_F(WorkerTest, StartThatIsRepeatedStartsNothing) {
  StartBoth("*:hang");
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  ASSERT_TRUE(UntilEvents(kProgress, 1));
  Linger();
  EXPECT_EQ(TrainerStarts().size(), 1U);
  EXPECT_THAT(session().events(kReport), IsEmpty());
}

TEST_F(WorkerTest, StartOfARunThatIsReportedSendsTheReportAgain) {
  StartBoth();
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  ASSERT_TRUE(UntilEvents(kReport, 1));
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  ASSERT_TRUE(UntilEvents(kReport, 2));
  EXPECT_EQ(TrainerStarts().size(), 1U);
}

TEST_F(WorkerTest, BusyAndUnknownSlotsHandBack) {
  StartBoth("*:hang");
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  SendStart(MakeStart(2, 1, "cpu0", "eager"));
  SendStart(MakeStart(3, 1, "GPU-7", "eager"));
  const v1::RunReport busy = UntilReport(2);
  EXPECT_EQ(busy.result().outcome(), v1::OUTCOME_CANCELLED);
  EXPECT_THAT(busy.result().reason(), HasSubstr("busy with run 1/1/0"));
  const v1::RunReport unknown = UntilReport(3);
  EXPECT_EQ(unknown.result().outcome(), v1::OUTCOME_CANCELLED);
  EXPECT_THAT(unknown.result().reason(), HasSubstr("no slot GPU-7"));
}

TEST_F(WorkerTest, StoppedRunIsNotReportedAndItsSlotGoesOn) {
  StartBoth("eager:stubborn");
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  ASSERT_TRUE(UntilEvents(kProgress, 1));
  SendStop(1, 1);
  SendStart(MakeStart(2, 1, "cpu0", "sdpa"));  // waits for the stubborn one to be killed
  EXPECT_EQ(UntilReport(2).result().outcome(), v1::OUTCOME_MEASURED);
  EXPECT_EQ(session().events(kReport).size(), 1U);
  EXPECT_FALSE(IsRunning(TrainerPid(0)));
}

TEST_F(WorkerTest, WaitingRunIsActiveInTheHelloAndTheStoppedOneIsNot) {
  StartBoth("*:stubborn");
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  ASSERT_TRUE(UntilEvents(kProgress, 1));
  SendStop(1, 1);
  SendStart(MakeStart(2, 1, "cpu0", "eager"));
  SendStart(MakeStart(3, 1, "cpu1", "eager"));  // tells that the two before it are taken
  ASSERT_TRUE(Until([&] { return TrainerStarts().size() == 2; }));
  session().End(grpc::Status::OK);
  ASSERT_TRUE(Until([&] { return coordinator_->sessions() == 2 && !session().events().empty(); }));
  const v1::WorkerHello hello = session().events()[0].hello();
  ASSERT_EQ(hello.active_size(), 2);
  EXPECT_EQ(hello.active(0).run().job_index(), 2U);
  EXPECT_EQ(hello.active(1).run().job_index(), 3U);
}

TEST_F(WorkerTest, SlotOfATrainerThatCannotBeKilledIsOutOfServiceUntilItHasEnded) {
  kill_limit_ = milliseconds(100);
  StartBoth("eager:unkillable=nonsense,sdpa:hang");
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  ASSERT_TRUE(Until([&] { return TrainerStarts().size() == 1; }));
  SendStart(MakeStart(2, 1, "cpu1", "sdpa"));
  v1::WorkerHello hello = NextHello(2);
  ASSERT_EQ(hello.worker().slots_size(), 1);
  EXPECT_EQ(hello.worker().slots(0).id(), "cpu1");
  EXPECT_FALSE(hello.draining());
  ASSERT_EQ(hello.active_size(), 1) << "what runs elsewhere goes on";
  EXPECT_EQ(hello.active(0).run().job_index(), 2U);
  ASSERT_EQ(hello.unacknowledged_size(), 1);
  const v1::RunReport& report = hello.unacknowledged(0);
  EXPECT_EQ(report.run().job_index(), 1U);
  EXPECT_EQ(report.result().outcome(), v1::OUTCOME_FAILED);
  EXPECT_THAT(report.result().reason(), AllOf(HasSubstr("nonsense"), HasSubstr("has not ended")));
  SendStart(MakeStart(3, 1, "cpu0", "sdpa"));
  const v1::RunResult handed_back = UntilReport(3).result();
  EXPECT_EQ(handed_back.outcome(), v1::OUTCOME_CANCELLED);
  EXPECT_THAT(handed_back.reason(), HasSubstr("slot cpu0 is out of service"));
  EXPECT_TRUE(IsRunning(TrainerPid(0)));

  kill(TrainerPid(0), SIGKILL);
  hello = NextHello(3);
  EXPECT_EQ(hello.worker().slots_size(), 2);
  EXPECT_EQ(hello.active_size(), 1);
  SendStart(MakeStart(4, 1, "cpu0", "sdpa"));
  EXPECT_TRUE(UntilEvents(kProgress, 1));
}

TEST_F(WorkerTest, RunThatWaitsForATrainerThatCannotBeKilledIsHandedBack) {
  kill_limit_ = milliseconds(100);
  StartBoth("*:unkillable");
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  ASSERT_TRUE(UntilEvents(kProgress, 1));
  SendStop(1, 1);
  SendStart(MakeStart(2, 1, "cpu0", "eager"));
  const v1::WorkerHello hello = NextHello(2);
  EXPECT_EQ(hello.active_size(), 0);
  ASSERT_EQ(hello.unacknowledged_size(), 1) << "the one that was stopped is not reported";
  EXPECT_EQ(hello.unacknowledged(0).run().job_index(), 2U);
  EXPECT_EQ(hello.unacknowledged(0).result().outcome(), v1::OUTCOME_CANCELLED);
  kill(TrainerPid(0), SIGKILL);
}

TEST_F(WorkerTest, WorkerWithoutASlotInServiceDrainsUntilOneIs) {
  kill_limit_ = milliseconds(100);
  StartBoth("*:unkillable=nonsense");
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  SendStart(MakeStart(2, 1, "cpu1", "eager"));
  ASSERT_TRUE(Until([&] {
    if (coordinator_->sessions() < 2 || session().events().empty()) return false;
    const v1::WorkerHello hello = session().events()[0].hello();
    return hello.draining() && hello.worker().slots_size() == 2;
  }));
  kill(TrainerPid(0), SIGKILL);
  ASSERT_TRUE(Until([&] {
    if (session().events().empty()) return false;
    const v1::WorkerHello hello = session().events()[0].hello();
    return !hello.draining() && hello.worker().slots_size() == 1;
  }));
  kill(TrainerPid(1), SIGKILL);
}

TEST_F(WorkerTest, DrainEndsWithATrainerThatCannotBeKilled) {
  kill_limit_ = milliseconds(100);
  StartBoth("*:unkillable");
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  ASSERT_TRUE(UntilEvents(kProgress, 1));
  worker_->Drain();
  const v1::RunReport report = UntilReport(1);
  EXPECT_EQ(report.result().outcome(), v1::OUTCOME_CANCELLED);
  session().Acknowledge(report);
  ASSERT_TRUE(Until([&] { return ended_.has_value(); }));
  EXPECT_TRUE(ended_->ok());
  StopWorker();
  EXPECT_TRUE(IsRunning(TrainerPid(0)));
  kill(TrainerPid(0), SIGKILL);
}

TEST_F(WorkerTest, StopOfAnOldAttemptOrAnUnknownRunChangesNothing) {
  StartBoth("*:slow=0.3");
  SendStop(9, 1);
  SendStart(MakeStart(1, 2, "cpu0", "eager"));
  ASSERT_TRUE(UntilEvents(kProgress, 1));
  SendStop(1, 1);
  ASSERT_TRUE(UntilEvents(kReport, 1));
  EXPECT_EQ(session().events(kReport)[0].report().attempt(), 2U);
}

TEST_F(WorkerTest, RunThatCannotBeStartedIsReported) {
  StartBoth();
  SendStart(MakeStart(1, 1, "cpu0", "eagr"));
  ASSERT_TRUE(UntilEvents(kReport, 1));
  const v1::RunResult result = session().events(kReport)[0].report().result();
  EXPECT_EQ(result.outcome(), v1::OUTCOME_FAILED);
  EXPECT_THAT(result.reason(), HasSubstr("did you mean \"eager\""));
}

TEST_F(WorkerTest, DrainHandsBackWhatRunsAndEnds) {
  StartBoth("*:hang");
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  ASSERT_TRUE(UntilEvents(kProgress, 1));
  worker_->Drain();
  const v1::RunReport report = UntilReport(1);
  EXPECT_EQ(report.result().outcome(), v1::OUTCOME_CANCELLED);
  EXPECT_EQ(report.result().reason(), "the worker is stopping");
  EXPECT_FALSE(IsRunning(TrainerPid(0)));
  Linger();
  EXPECT_FALSE(ended_.has_value()) << "nobody has said that the run was taken back";
  session().Acknowledge(report);
  ASSERT_TRUE(Until([&] { return ended_.has_value(); }));
  EXPECT_TRUE(ended_->ok());
  EXPECT_TRUE(session().half_closed());
}

TEST_F(WorkerTest, WhatIsHandedBackIsSaidAgainToTheNextCoordinator) {
  StartBoth("*:hang");
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  ASSERT_TRUE(UntilEvents(kProgress, 1));
  worker_->Drain();
  UntilReport(1);
  session().End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "it dies before it has saved that"));
  const v1::WorkerHello hello = NextHello(2);
  EXPECT_TRUE(hello.draining());
  ASSERT_EQ(hello.unacknowledged_size(), 1);
  EXPECT_EQ(hello.unacknowledged(0).result().outcome(), v1::OUTCOME_CANCELLED);
  session().Acknowledge(hello.unacknowledged(0));
  EXPECT_TRUE(Until([&] { return ended_.has_value(); }));
}

TEST_F(WorkerTest, StartThatComesWithTheLastAcknowledgementIsHandedBack) {
  StartBoth();
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  const v1::RunReport report = UntilReport(1);
  worker_->Drain();
  v1::WorkerCommand batch;
  v1::ActiveRun& acknowledged = *batch.mutable_batch()->add_commands()->mutable_acknowledge()->add_reports();
  *acknowledged.mutable_run() = report.run();
  acknowledged.set_attempt(report.attempt());
  *batch.mutable_batch()->add_commands()->mutable_start() = MakeStart(2, 1, "cpu0", "eager");
  session().Send(batch);
  const v1::RunReport handed_back = UntilReport(2);
  EXPECT_EQ(handed_back.result().outcome(), v1::OUTCOME_CANCELLED);
  session().Acknowledge(handed_back);
  EXPECT_TRUE(Until([&] { return ended_.has_value(); }));
}

TEST_F(WorkerTest, DrainTakesNothingNewAndLetsActiveRunsFinishInTime) {
  drain_timeout_ = kPatience;
  StartBoth("*:slow=0.5");
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  ASSERT_TRUE(UntilEvents(kProgress, 1));
  worker_->Drain();
  SendStart(MakeStart(2, 1, "cpu1", "eager"));
  const v1::RunReport handed_back = UntilReport(2);
  EXPECT_EQ(handed_back.result().outcome(), v1::OUTCOME_CANCELLED);
  session().Acknowledge(handed_back);
  const std::vector<v1::WorkerEvent> heartbeats = session().events(v1::WorkerEvent::kHeartbeat);
  ASSERT_FALSE(heartbeats.empty());
  EXPECT_TRUE(heartbeats[0].heartbeat().draining());
  const v1::RunReport report = UntilReport(1);
  EXPECT_EQ(report.result().outcome(), v1::OUTCOME_MEASURED);
  Linger();
  EXPECT_FALSE(ended_.has_value()) << "the report is not acknowledged yet";
  session().Acknowledge(report);
  EXPECT_TRUE(Until([&] { return ended_.has_value(); }));
}

TEST_F(WorkerTest, DrainDoesNotWaitForEverForAnAcknowledgement) {
  ack_limit_ = milliseconds(100);
  StartBoth();
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  ASSERT_TRUE(UntilEvents(kReport, 1));
  worker_->Drain();
  ASSERT_TRUE(Until([&] { return ended_.has_value(); }));
  EXPECT_EQ(Spool::Open(scratch_ / "spool").value()->reports().size(), 1U);
}

TEST_F(WorkerTest, DrainWithoutACoordinatorEndsAtOnce) {
  StartWorker();
  worker_->Drain();
  EXPECT_TRUE(Until([&] { return ended_.has_value(); }));
}

TEST_F(WorkerTest, RefusalStopsWhatRuns) {
  StartBoth("*:hang");
  SendStart(MakeStart(1, 1, "cpu0", "eager"));
  ASSERT_TRUE(UntilEvents(kProgress, 1));
  session().End(grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "another protocol"));
  ASSERT_TRUE(Until([&] { return ended_.has_value(); }));
  EXPECT_THAT(std::string(ended_->message()), HasSubstr("another protocol"));
  EXPECT_FALSE(IsRunning(TrainerPid(0)));
}

TEST_F(WorkerTest, ManyShortRunsAreEachReportedOnce) {
  StartBoth();
  constexpr uint32_t kRuns = 100;
  uint32_t next = 0;
  const auto feed = [&](const std::string& slot) { SendStart(MakeStart(++next, 1, slot, "eager")); };
  feed("cpu0");
  feed("cpu1");
  size_t seen = 0;
  ASSERT_TRUE(Until([&] {
    const std::vector<v1::WorkerEvent> reports = session().events(kReport);
    for (; seen < reports.size(); ++seen) {
      session().Acknowledge(reports[seen].report());
      if (next < kRuns) feed(reports[seen].report().slot());
    }
    return seen == kRuns;
  }));
  EXPECT_EQ(TrainerStarts().size(), kRuns);
  EXPECT_TRUE(Until([&] { return Spool::Open(scratch_ / "spool").value()->reports().empty(); }));
}

}  // namespace
}  // namespace attnfleet::worker
