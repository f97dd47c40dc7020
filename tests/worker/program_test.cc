// attnfleet-worker as users start it, against a coordinator in this process.

#include <gmock/gmock.h>
#include <unistd.h>

#include <csignal>
#include <optional>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "fake_coordinator.h"
#include "proto/support/exit_code.h"
#include "support.h"
#include "worker/child.h"
#include "worker/trainer_process.h"

namespace attnfleet::worker {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;
using Session = FakeCoordinator::Session;

struct Program {
  std::unique_ptr<Child> child;
  std::string output;
  std::string error;
  std::optional<ExitState> state;
};

class WorkerProgram : public testing::Test {
 protected:
  std::unique_ptr<Program> Start(std::vector<std::string> arguments, const std::string& behaviour = "") {
    auto program = std::make_unique<Program>();
    Program* self = program.get();
    arguments.insert(arguments.begin(), ATTNFLEET_WORKER_PROGRAM);
    absl::StatusOr<std::unique_ptr<Child>> child =
        Child::Start(*loop_, arguments, {"ATTNFLEET_DOUBLE=" + behaviour, "ATTNFLEET_DOUBLE_LOG=" + (scratch_ / "log")},
                     {.output = [self](std::string_view bytes) { self->output += bytes; },
                      .error = [self](std::string_view bytes) { self->error += bytes; },
                      .exited = [self](ExitState state) { self->state = state; }});
    EXPECT_TRUE(child.ok()) << child.status();
    program->child = *std::move(child);
    return program;
  }

  std::vector<std::string> Usual(const std::string& name = "w1") {
    return {"--server=unix:" + socket_, "--name=" + name, "--slots=cpu", "--state-dir=" + (scratch_ / name),
            std::string("--trainer=") + ATTNFLEET_TRAINER_DOUBLE};
  }

  int Wait(Program& program) {
    EXPECT_TRUE(RunUntil(*loop_, [&] { return program.state.has_value(); })) << program.error;
    return program.state->signal != 0 ? -program.state->signal : program.state->status;
  }

  bool WaitReady(Program& program) {
    return RunUntil(*loop_, [&] { return program.output.find('\n') != std::string::npos || program.state; });
  }

  // A worker that trains something that never ends.
  std::unique_ptr<Program> StartBusy(const std::string& behaviour) {
    auto program = Start(Usual(), behaviour);
    EXPECT_TRUE(WaitReady(*program)) << program->error;
    v1::WorkerCommand command;
    *command.mutable_start() = MakeStart(1, 1, "cpu0", "eager");
    coordinator_->last().Send(command);
    EXPECT_TRUE(RunUntil(*loop_, [&] { return !coordinator_->last().events(v1::WorkerEvent::kProgress).empty(); }));
    return program;
  }

  pid_t TrainerPid() {
    const std::vector<std::string> lines = ReadLines(scratch_ / "log");
    int pid = 0;
    EXPECT_TRUE(!lines.empty() && absl::SimpleAtoi(lines[0].substr(0, lines[0].find(' ')), &pid));
    return pid;
  }

  const ScratchDirectory scratch_;
  const std::string socket_ = scratch_ / "socket";
  const std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  std::unique_ptr<FakeCoordinator> coordinator_ =
      std::make_unique<FakeCoordinator>(socket_, [](Session& session) { session.Welcome(); });
};

TEST_F(WorkerProgram, SaysReadyWithItsName) {
  const auto program = Start(Usual("rack-7"));
  ASSERT_TRUE(WaitReady(*program));
  EXPECT_EQ(program->output, "ready rack-7\n");
  EXPECT_THAT(program->error, HasSubstr("LibTorch 2.11.0+double from trainer-double"));
  ASSERT_TRUE(RunUntil(*loop_, [&] { return !coordinator_->last().events().empty(); }));
  const v1::WorkerInfo info = coordinator_->last().events()[0].hello().worker();
  EXPECT_EQ(info.name(), "rack-7");
  EXPECT_EQ(info.protocol(), 1U);
  EXPECT_EQ(info.instance().size(), 32U);
  ASSERT_EQ(info.slots_size(), 1);
  EXPECT_EQ(info.slots(0).id(), "cpu0");
  EXPECT_GT(info.slots(0).memory_bytes(), 0);
  EXPECT_EQ(info.backends_size(), 4);
}

TEST_F(WorkerProgram, KilledLeavesNoTrainerRunning) {
  const auto program = StartBusy("*:stubborn");
  const pid_t trainer = TrainerPid();
  EXPECT_TRUE(IsRunning(trainer));
  kill(program->child->pid(), SIGKILL);
  EXPECT_EQ(Wait(*program), -SIGKILL);
  EXPECT_TRUE(RunUntil(*loop_, [&] { return !IsRunning(trainer); }));
}

TEST_F(WorkerProgram, SigtermHandsBackAndEndsCleanly) {
  const auto program = StartBusy("*:hang");
  kill(program->child->pid(), SIGTERM);
  Session& session = coordinator_->last();
  ASSERT_TRUE(RunUntil(*loop_, [&] { return !session.events(v1::WorkerEvent::kReport).empty(); }));
  const v1::RunReport report = session.events(v1::WorkerEvent::kReport)[0].report();
  EXPECT_EQ(report.result().outcome(), v1::OUTCOME_CANCELLED);
  session.Acknowledge(report);
  EXPECT_EQ(Wait(*program), kExitOk) << program->error;
  EXPECT_FALSE(IsRunning(TrainerPid()));
}

TEST_F(WorkerProgram, SecondSignalKillsAtOnce) {
  const auto program = StartBusy("*:stubborn");
  const auto start = EventLoop::Clock::now();
  kill(program->child->pid(), SIGINT);
  ASSERT_TRUE(RunUntil(*loop_, [&] { return program->error.find("stopping") != std::string::npos; }));
  kill(program->child->pid(), SIGINT);
  EXPECT_EQ(Wait(*program), kExitInterrupted);
  EXPECT_LT(EventLoop::Clock::now() - start, kStopGrace);
  EXPECT_FALSE(IsRunning(TrainerPid()));
}

TEST_F(WorkerProgram, SecondWorkerOnAStateDirectoryIsToldWhoHasIt) {
  const auto first = Start(Usual());
  ASSERT_TRUE(WaitReady(*first));
  const auto second = Start(Usual());
  EXPECT_EQ(Wait(*second), kExitUnavailable);
  EXPECT_THAT(second->error, AllOf(HasSubstr("--state-dir"), HasSubstr(absl::StrCat(first->child->pid()))));
}

TEST_F(WorkerProgram, RefusedByTheCoordinator) {
  coordinator_.reset();
  coordinator_ = std::make_unique<FakeCoordinator>(socket_, [](Session& session) {
    session.End(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "worker.labels: too many"));
  });
  const auto program = Start(Usual());
  EXPECT_EQ(Wait(*program), kExitUsage);
  EXPECT_THAT(program->error, HasSubstr("worker.labels: too many"));
}

TEST_F(WorkerProgram, NobodyAnswersInTime) {
  coordinator_.reset();
  std::vector<std::string> arguments = Usual();
  arguments.push_back("--connect-timeout=200ms");
  const auto program = Start(arguments);
  EXPECT_EQ(Wait(*program), kExitUnavailable);
  EXPECT_THAT(program->error, HasSubstr(socket_));
}

TEST_F(WorkerProgram, TrainerThatCannotBeUsedIsShown) {
  const auto program = Start(Usual(), "list:exit=5");
  EXPECT_EQ(Wait(*program), kExitFailed);
  EXPECT_THAT(program->error, HasSubstr("double: exiting with status 5"));
}

TEST_F(WorkerProgram, SignalWhileTheTrainerIsAskedEndsIt) {
  const auto program = Start(Usual(), "list:stubborn");
  RunUntil(
      *loop_, [] { return false; }, std::chrono::milliseconds(200));
  kill(program->child->pid(), SIGTERM);
  EXPECT_EQ(Wait(*program), kExitOk);
}

TEST_F(WorkerProgram, DiesWithItsParentIfAsked) {
  std::vector<std::string> arguments = Usual();
  arguments.push_back("--parent-pid=1");
  const auto program = Start(arguments);
  EXPECT_EQ(Wait(*program), kExitUnavailable);
  EXPECT_THAT(program->error, HasSubstr("parent process 1 is gone"));
}

TEST_F(WorkerProgram, MistakesInFlagsAreOneLineThatNamesThem) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"--sever=x:1", "did you mean \"--server\""},
      {"--server=nowhere", "--server: \"nowhere\" is no address"},
      {"--slots=cpu:0", "--slots: \"cpu:0\""},
      {"--labels=rack", "--labels: \"rack\" is no label"},
      {"--labels=a=1,a=2", "--labels: a is given twice"},
      {"--name=a b", "--name: \"a b\""},
      {"--trainer=/no/trainer", "--trainer: there is no program /no/trainer"},
      {"--drain-timeout=soon", "--drain-timeout: \"soon\" is no value"},
      {"--connect-timeout=-1s", "--connect-timeout: -1s is out of range"},
      {"extra", "unexpected argument \"extra\""},
  };
  for (const auto& [argument, message] : cases) {
    std::vector<std::string> arguments = Usual();
    arguments.push_back(argument);
    const auto program = Start(arguments);
    EXPECT_EQ(Wait(*program), kExitUsage) << argument;
    EXPECT_THAT(program->error, HasSubstr(message));
  }
}

TEST_F(WorkerProgram, HelpShowsExamplesAndExitCodes) {
  const auto program = Start({"--help"});
  EXPECT_EQ(Wait(*program), kExitOk);
  EXPECT_THAT(program->output, AllOf(StartsWith("attnfleet-worker: "), HasSubstr("Exit codes")));
}

TEST_F(WorkerProgram, ReadOnlyStateDirectoryIsNamed) {
  std::vector<std::string> arguments = Usual();
  arguments.push_back("--state-dir=/proc/no/state");
  const auto program = Start(arguments);
  EXPECT_EQ(Wait(*program), kExitUnavailable);
  EXPECT_THAT(program->error, HasSubstr("/proc/no/state"));
}

}  // namespace
}  // namespace attnfleet::worker
