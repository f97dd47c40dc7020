#include "worker/trainer_process.h"

#include <fcntl.h>
#include <gmock/gmock.h>

#include <csignal>
#include <optional>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "support.h"

namespace attnfleet::worker {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::MatchesRegex;
using testing::Not;
using testing::StartsWith;

class TrainerProcessTest : public testing::Test {
 protected:
  void Start(const std::string& behaviour, double timeout_seconds = 0) {
    const ScopedEnvironment environment("ATTNFLEET_DOUBLE", behaviour);
    const ScopedEnvironment log("ATTNFLEET_DOUBLE_LOG", scratch_ / "log");
    const auto command =
        MakeRunCommand(DoubleProgram(), MakeStart(1, 1, "cpu0", "eager"), CpuSlot("cpu0"), DoubleCapabilities());
    auto process = TrainerProcess::Start(
        *loop_, oom_kill_counter_, *command, timeout_seconds,
        {.progress = [this](const v1::TrainerProgress& progress) { progress_.push_back(progress); },
         .ended =
             [this](v1::RunResult result) {
               result_ = std::move(result);
               process_.reset();
             },
         .given_up =
             [this](v1::RunResult result, const std::string& what) {
               given_up_ = std::move(result);
               what_ = what;
             }},
        kill_limit_);
    ASSERT_TRUE(process.ok()) << process.status();
    process_ = *std::move(process);
  }

  v1::RunResult Wait() {
    EXPECT_TRUE(RunUntil(*loop_, [this] { return result_.has_value(); }));
    EXPECT_FALSE(IsRunning(Pid()));
    return result_.value_or(v1::RunResult());
  }

  v1::RunResult Run(const std::string& behaviour, double timeout_seconds = 0) {
    Start(behaviour, timeout_seconds);
    return Wait();
  }

  // As the double has logged it.
  pid_t Pid() {
    const std::vector<std::string> lines = ReadLines(scratch_ / "log");
    int pid = 0;
    EXPECT_TRUE(!lines.empty() && absl::SimpleAtoi(lines[0].substr(0, lines[0].find(' ')), &pid));
    return pid;
  }

  int64_t oom_kills_ = 3;  // of the host, so far
  OomKillCounter oom_kill_counter_{[this] { return oom_kills_; }, milliseconds(0)};
  const ScratchDirectory scratch_;
  const std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  std::vector<v1::TrainerProgress> progress_;
  std::optional<v1::RunResult> result_;
  milliseconds kill_limit_ = kKillLimit;
  std::optional<v1::RunResult> given_up_;
  std::string what_;
  std::unique_ptr<TrainerProcess> process_;
};

TEST_F(TrainerProcessTest, MeasuredResult) {
  const v1::RunResult result = Run("eager:measured");
  EXPECT_EQ(result.outcome(), v1::OUTCOME_MEASURED);
  EXPECT_EQ(result.measurement().timed_steps(), 40);
  EXPECT_EQ(result.measurement().step_seconds_size(), 40);
  EXPECT_EQ(result.environment().seed(), 7U);
}

TEST_F(TrainerProcessTest, ProgressOnTheWay) {
  EXPECT_EQ(Run("eager:slow=0.5").outcome(), v1::OUTCOME_MEASURED);
  ASSERT_THAT(progress_, Not(IsEmpty()));
  EXPECT_EQ(progress_.back().phase(), v1::TRAINER_PHASE_TIMED);
  EXPECT_EQ(progress_.back().steps_total(), 40);
}

TEST_F(TrainerProcessTest, OutOfMemoryAndUnsupportedAreResults) {
  const v1::RunResult oom = Run("eager:oom");
  EXPECT_EQ(oom.outcome(), v1::OUTCOME_OUT_OF_MEMORY);
  EXPECT_EQ(oom.out_of_memory().requested_bytes(), 34359738368);
  EXPECT_FALSE(oom.has_failure());
  result_.reset();
  EXPECT_EQ(Run("eager:unsupported").outcome(), v1::OUTCOME_UNSUPPORTED);
}

TEST_F(TrainerProcessTest, CrashIsAFailureWithItsSignal) {
  const v1::RunResult result = Run("eager:crash=11");
  EXPECT_EQ(result.outcome(), v1::OUTCOME_FAILED);
  EXPECT_EQ(result.reason(), "trainer killed by signal 11 (Segmentation fault)");
  EXPECT_EQ(result.failure().signal(), 11);
  EXPECT_THAT(result.failure().log_tail(), HasSubstr("about to die"));
  EXPECT_EQ(result.environment().device_name(), "Double") << "what the trainer told before it died";
}

TEST_F(TrainerProcessTest, ExitStatusIsAFailureWithTheLastWords) {
  const v1::RunResult result = Run("eager:exit=3");
  EXPECT_EQ(result.reason(), "trainer exited with status 3: double: exiting with status 3");
  EXPECT_EQ(result.failure().exit_status(), 3);
}

TEST_F(TrainerProcessTest, ExitWithoutAResultIsAFailure) {
  EXPECT_THAT(Run("eager:exit=0").reason(), HasSubstr("without a result"));
}

TEST_F(TrainerProcessTest, FailureThatTheTrainerReportsKeepsItsReason) {
  const v1::RunResult result = Run("eager:failed");
  EXPECT_EQ(result.outcome(), v1::OUTCOME_FAILED);
  EXPECT_EQ(result.reason(), "the double was told to fail");
  EXPECT_EQ(result.failure().exit_status(), 1);
}

TEST_F(TrainerProcessTest, GarbageIsAFailureThatQuotesIt) {
  const v1::RunResult result = Run("eager:garbage");
  EXPECT_EQ(result.outcome(), v1::OUTCOME_FAILED);
  EXPECT_THAT(result.reason(), HasSubstr("no TrainerEvent: \"Segmentation fault? no: garbage\\x01\""));
}

TEST_F(TrainerProcessTest, HalfALineIsAFailure) {
  const v1::RunResult result = Run("eager:half");
  EXPECT_EQ(result.outcome(), v1::OUTCOME_FAILED);
  EXPECT_THAT(result.reason(), HasSubstr("in the middle of a line"));
}

TEST_F(TrainerProcessTest, LineWithoutEndIsAFailure) {
  const v1::RunResult result = Run("eager:huge");
  EXPECT_EQ(result.outcome(), v1::OUTCOME_FAILED);
  EXPECT_THAT(result.reason(), HasSubstr("longer than"));
}

TEST_F(TrainerProcessTest, KeepsTheEndOfALongLog) {
  const v1::RunResult result = Run("eager:chatty=1000000");
  EXPECT_EQ(result.reason(), "trainer exited with status 1: last words");
  EXPECT_EQ(result.failure().log_tail().size(), kLogTailBytes);
}

TEST_F(TrainerProcessTest, TimeLimitStopsIt) {
  const v1::RunResult result = Run("eager:hang", 0.2);
  EXPECT_EQ(result.outcome(), v1::OUTCOME_FAILED);
  EXPECT_EQ(result.reason(), "stopped after its time limit of 0.2 s (--run-timeout)");
  EXPECT_EQ(result.failure().signal(), SIGTERM);
  EXPECT_TRUE(result.failure().timed_out());
}

TEST_F(TrainerProcessTest, StubbornOneIsKilledAfterTheGrace) {
  const auto start = EventLoop::Clock::now();
  const v1::RunResult result = Run("eager:stubborn", 0.2);
  EXPECT_EQ(result.failure().signal(), SIGKILL);
  EXPECT_GE(EventLoop::Clock::now() - start, kStopGrace);
}

TEST_F(TrainerProcessTest, StopIsCancelledWithTheReason) {
  Start("eager:hang");
  ASSERT_TRUE(RunUntil(*loop_, [this] { return !progress_.empty(); }));
  process_->Stop("not wanted any more");
  process_->Stop("again");
  const v1::RunResult result = Wait();
  EXPECT_EQ(result.outcome(), v1::OUTCOME_CANCELLED);
  EXPECT_EQ(result.reason(), "not wanted any more");
}

TEST_F(TrainerProcessTest, KillEndsAStubbornOneAtOnce) {
  Start("eager:stubborn");
  ASSERT_TRUE(RunUntil(*loop_, [this] { return !progress_.empty(); }));
  const auto start = EventLoop::Clock::now();
  process_->Kill("now");
  EXPECT_EQ(Wait().outcome(), v1::OUTCOME_CANCELLED);
  EXPECT_LT(EventLoop::Clock::now() - start, kStopGrace);
}

TEST_F(TrainerProcessTest, OneThatCannotBeKilledIsGivenUpAndItsEndIsStillHeardOf) {
  kill_limit_ = milliseconds(100);
  Start("eager:unkillable=nonsense");
  ASSERT_TRUE(RunUntil(*loop_, [this] { return given_up_.has_value(); }));
  EXPECT_THAT(what_, MatchesRegex(absl::StrCat("process ", Pid(), " .state S. has not ended 0.1 s after SIGKILL")));
  EXPECT_EQ(given_up_->outcome(), v1::OUTCOME_FAILED);
  EXPECT_EQ(given_up_->reason(), "a line of its output is no TrainerEvent: \"nonsense\"; its " + what_);
  EXPECT_FALSE(result_.has_value());
  kill(Pid(), SIGKILL);
  Wait();
}

TEST_F(TrainerProcessTest, OneThatIsStoppedAndCannotBeKilledIsCancelled) {
  kill_limit_ = milliseconds(100);
  Start("eager:unkillable");
  ASSERT_TRUE(RunUntil(*loop_, [this] { return !progress_.empty(); }));
  process_->Kill("not wanted any more");
  ASSERT_TRUE(RunUntil(*loop_, [this] { return given_up_.has_value(); }));
  EXPECT_EQ(given_up_->outcome(), v1::OUTCOME_CANCELLED);
  EXPECT_EQ(given_up_->reason(), "not wanted any more");
  kill(Pid(), SIGKILL);
  Wait();
}

TEST_F(TrainerProcessTest, OneThatEndedWhileThisProcessWasStoppedIsNotGivenUp) {
  kill_limit_ = milliseconds(1);
  Start("eager:hang");
  ASSERT_TRUE(RunUntil(*loop_, [this] { return !progress_.empty(); }));
  process_->Kill("not wanted any more");
  while (IsRunning(Pid())) std::this_thread::sleep_for(milliseconds(1));
  std::this_thread::sleep_for(kill_limit_);
  Wait();
  EXPECT_FALSE(given_up_.has_value());
}

TEST_F(TrainerProcessTest, OneThatCannotBeKilledIsLeftBehind) {
  kill_limit_ = milliseconds(100);
  Start("eager:unkillable");
  ASSERT_TRUE(RunUntil(*loop_, [this] { return !progress_.empty(); }));
  process_.reset();
  EXPECT_TRUE(IsRunning(Pid()));
  kill(Pid(), SIGKILL);
}

TEST_F(TrainerProcessTest, KilledFromOutsideIsAFailure) {
  Start("eager:hang");
  ASSERT_TRUE(RunUntil(*loop_, [this] { return !progress_.empty(); }));
  kill(Pid(), SIGTERM);
  EXPECT_EQ(Wait().outcome(), v1::OUTCOME_FAILED);
}

TEST_F(TrainerProcessTest, KilledByTheKernelForWantOfMemoryIsOutOfMemory) {
  Start("eager:hang");
  ASSERT_TRUE(RunUntil(*loop_, [this] { return !progress_.empty(); }));
  ++oom_kills_;
  kill(Pid(), SIGKILL);
  const v1::RunResult result = Wait();
  EXPECT_EQ(result.outcome(), v1::OUTCOME_OUT_OF_MEMORY);
  EXPECT_EQ(result.reason(), "the kernel killed the trainer: the host's memory was used up");
  EXPECT_TRUE(result.out_of_memory().host_memory());
  EXPECT_GT(result.out_of_memory().killed_at_bytes(), 100'000);
  EXPECT_EQ(result.environment().device_name(), "Double");
}

TEST_F(TrainerProcessTest, LastWordsThatAreReadAfterTheKernelsKillHideNothing) {
  Start("eager:hang");
  const auto deadline = EventLoop::Clock::now() + std::chrono::seconds(60);
  while (ReadLines(scratch_ / "log").empty() && EventLoop::Clock::now() < deadline) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  ++oom_kills_;
  kill(Pid(), SIGKILL);
  EXPECT_EQ(Wait().outcome(), v1::OUTCOME_OUT_OF_MEMORY);
}

TEST_F(TrainerProcessTest, KillElsewhereBeforeItWasLastHeardOfDoesNotCount) {
  Start("eager:slow=60");
  ASSERT_TRUE(RunUntil(*loop_, [this] { return !progress_.empty(); }));
  ++oom_kills_;
  const size_t then = progress_.size();
  ASSERT_TRUE(RunUntil(*loop_, [this, then] { return progress_.size() >= then + 2; }));
  kill(Pid(), SIGKILL);
  EXPECT_EQ(Wait().outcome(), v1::OUTCOME_FAILED);
}

TEST_F(TrainerProcessTest, KilledBySomebodyElseIsAFailure) {
  Start("eager:hang");
  ASSERT_TRUE(RunUntil(*loop_, [this] { return !progress_.empty(); }));
  kill(Pid(), SIGKILL);
  const v1::RunResult result = Wait();
  EXPECT_EQ(result.outcome(), v1::OUTCOME_FAILED);
  EXPECT_FALSE(result.failure().timed_out());
}

TEST_F(TrainerProcessTest, OtherEndsAreNotOutOfMemoryWhateverTheKernelKillsElsewhere) {
  Start("eager:crash=11");
  ++oom_kills_;  // elsewhere on the host
  EXPECT_EQ(Wait().outcome(), v1::OUTCOME_FAILED);
  result_.reset();
  Start("eager:hang");
  ASSERT_TRUE(RunUntil(*loop_, [this] { return !progress_.empty(); }));
  ++oom_kills_;
  process_->Kill("not wanted");
  EXPECT_EQ(Wait().outcome(), v1::OUTCOME_CANCELLED);
}

TEST_F(TrainerProcessTest, ResultOfOneThatDoesNotExitCounts) {
  EXPECT_EQ(Run("eager:linger").outcome(), v1::OUTCOME_MEASURED);
}

TEST_F(TrainerProcessTest, DestroyingItKillsIt) {
  Start("eager:stubborn");
  ASSERT_TRUE(RunUntil(*loop_, [this] { return !progress_.empty(); }));
  process_.reset();
  EXPECT_FALSE(IsRunning(Pid()));
  EXPECT_FALSE(result_.has_value());
}

TEST_F(TrainerProcessTest, WhatItLeavesInItsGroupIsKilled) {
  EXPECT_EQ(Run("eager:orphan").outcome(), v1::OUTCOME_MEASURED);
  const pid_t group = Pid();
  EXPECT_TRUE(RunUntil(*loop_, [group] { return kill(-group, 0) != 0; })) << "the orphan lives";
}

TEST_F(TrainerProcessTest, ProgramThatDoesNotStartIsNamed) {
  const auto process = TrainerProcess::Start(*loop_, oom_kill_counter_, {{"/no/such/trainer"}, {}}, 0, {});
  EXPECT_THAT(std::string(process.status().message()), StartsWith("cannot start /no/such/trainer"));
}

TEST_F(TrainerProcessTest, FiftyRunsLeaveNothingOpen) {
  const auto count_descriptors = [] {
    size_t count = 0;
    for (int descriptor = 0; descriptor < 256; ++descriptor) count += fcntl(descriptor, F_GETFD) >= 0 ? 1U : 0U;
    return count;
  };
  Run("eager:measured");
  const size_t before = count_descriptors();
  for (int i = 0; i < 50; ++i) {
    result_.reset();
    Run("eager:measured");
  }
  EXPECT_EQ(count_descriptors(), before);
}

}  // namespace
}  // namespace attnfleet::worker
