#include "server/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fleet_fixture.h"

namespace attnfleet::server {
namespace {

constexpr int64_t kLease = 1'000;

class SchedulerTest : public testing::Test {
 protected:
  // What the last event made, with the invariants checked.
  Effects Take() {
    EXPECT_EQ(scheduler_.CheckInvariants(), absl::OkStatus());
    Effects taken = std::move(effects_);
    effects_ = {};
    return taken;
  }

  uint64_t Submit(const v1::BenchmarkSpec& spec) { return scheduler_.Submit(spec, now_, effects_); }

  void Join(const v1::WorkerHello& hello) { scheduler_.WorkerJoined(hello, now_, effects_); }

  // The one run that was assigned.
  v1::StartRun TakeStart() {
    const Effects effects = Take();
    EXPECT_EQ(effects.assign.size(), 1u);
    return effects.assign.empty() ? v1::StartRun() : effects.assign[0].start;
  }

  void Report(const std::string& worker, const v1::StartRun& start, v1::Outcome outcome) {
    scheduler_.RunReported(worker, MakeReport(start, outcome), now_, effects_);
  }

  void Progress(const std::string& worker, const v1::StartRun& start) {
    v1::RunProgress progress;
    *progress.mutable_run() = start.run();
    progress.set_attempt(start.attempt());
    scheduler_.RunProgressed(worker, progress, now_, effects_);
  }

  const v1::Run& RunOf(const v1::StartRun& start) {
    return scheduler_.Find(start.run().benchmark_id())
        ->jobs(static_cast<int>(start.run().job_index()))
        .runs(static_cast<int>(start.run().repetition()));
  }

  int64_t now_ = 1'000'000;
  Scheduler scheduler_{kLease};
  Effects effects_;
};

TEST_F(SchedulerTest, RunsOfAGroupGoToOneSlotRepetitionByRepetition) {
  Join(MakeHello("w", 2));
  Submit(MakeSpec({"eager", "sdpa"}, 1, 2));
  std::vector<std::string> order;
  for (int i = 0; i < 4; ++i) {
    const v1::StartRun start = TakeStart();
    EXPECT_EQ(start.slot(), "cpu0");
    EXPECT_EQ(start.training().seed(), 1 + start.run().repetition());
    order.push_back(start.backend() + std::to_string(start.run().repetition()));
    Report("w", start, v1::OUTCOME_MEASURED);
  }
  EXPECT_THAT(order, testing::ElementsAre("eager0", "sdpa0", "eager1", "sdpa1"));
  EXPECT_EQ(scheduler_.Find(1)->state(), v1::BENCHMARK_STATE_FINISHED);
}

TEST_F(SchedulerTest, GroupsRunSideBySideOnDifferentSlots) {
  Join(MakeHello("w", 2));
  Submit(MakeSpec({"eager"}, 3, 1));
  EXPECT_EQ(Take().assign.size(), 2u);
  EXPECT_EQ(scheduler_.counts().queued, 1u);
}

TEST_F(SchedulerTest, OldestBenchmarkGoesFirst) {
  Submit(MakeSpec({"eager"}, 1, 1));
  Submit(MakeSpec({"eager"}, 1, 1));
  Join(MakeHello("w", 1));
  EXPECT_EQ(TakeStart().run().benchmark_id(), 1u);
}

TEST_F(SchedulerTest, OutOfMemoryAndUnsupportedAreResults) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager", "sdpa"}, 1, 1));
  Report("w", TakeStart(), v1::OUTCOME_OUT_OF_MEMORY);
  Report("w", TakeStart(), v1::OUTCOME_UNSUPPORTED);
  EXPECT_TRUE(Take().assign.empty());
  EXPECT_EQ(scheduler_.Find(1)->state(), v1::BENCHMARK_STATE_FINISHED);
}

TEST_F(SchedulerTest, FailedRunIsTriedAgainABoundedNumberOfTimes) {
  Join(MakeHello("w", 1));
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, 1);
  spec.set_max_attempts(3);
  Submit(spec);
  for (uint32_t attempt = 1; attempt <= 3; ++attempt) {
    const v1::StartRun start = TakeStart();
    EXPECT_EQ(start.attempt(), attempt);
    Report("w", start, v1::OUTCOME_FAILED);
  }
  EXPECT_TRUE(Take().assign.empty());
  const v1::Run& run = scheduler_.Find(1)->jobs(0).runs(0);
  EXPECT_EQ(run.result().outcome(), v1::OUTCOME_FAILED);
  EXPECT_EQ(run.failed_attempts_size(), 2);
}

TEST_F(SchedulerTest, RunThatTimedOutIsNotTriedAgain) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager"}, 1, 1));
  const v1::StartRun start = TakeStart();
  v1::RunReport report = MakeReport(start, v1::OUTCOME_FAILED);
  report.mutable_result()->set_reason("stopped after its time limit");
  report.mutable_result()->mutable_failure()->set_timed_out(true);
  scheduler_.RunReported("w", report, now_, effects_);
  EXPECT_TRUE(Take().assign.empty());
  EXPECT_EQ(RunOf(start).result().outcome(), v1::OUTCOME_FAILED);
  EXPECT_EQ(RunOf(start).failed_attempts_size(), 0);
  EXPECT_EQ(scheduler_.Explain(1)[0].text(),
            "1 of 1 runs ended, the last on w cpu0: failed: stopped after its time limit");
}

TEST_F(SchedulerTest, StaleAttemptIsAcknowledgedAndDropped) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager"}, 1, 1));
  const v1::StartRun first = TakeStart();
  Report("w", first, v1::OUTCOME_FAILED);
  const v1::StartRun second = TakeStart();
  Report("w", first, v1::OUTCOME_MEASURED);
  EXPECT_EQ(Take().acknowledge.size(), 1u);
  EXPECT_EQ(RunOf(first).state(), v1::RUN_STATE_ASSIGNED);
  Report("w", second, v1::OUTCOME_MEASURED);
  Report("w", second, v1::OUTCOME_FAILED);  // doubled by the network, and changed
  EXPECT_EQ(RunOf(first).result().outcome(), v1::OUTCOME_MEASURED);
  EXPECT_EQ(scheduler_.Find(1)->runs_ended(), 1u);
}

TEST_F(SchedulerTest, ReportOfAnotherWorkerIsNotCounted) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager"}, 1, 1));
  const v1::StartRun start = TakeStart();
  Join(MakeHello("thief", 1));
  Report("thief", start, v1::OUTCOME_MEASURED);
  EXPECT_EQ(RunOf(start).state(), v1::RUN_STATE_ASSIGNED);
}

TEST_F(SchedulerTest, LostWorkersRunGoesElsewhere) {
  Join(MakeHello("w1", 1));
  Submit(MakeSpec({"eager"}, 1, 1));
  const v1::StartRun start = TakeStart();
  Progress("w1", start);
  Join(MakeHello("w2", 1));
  Take();
  now_ += kLease + 1;
  scheduler_.WorkerHeard("w2", false, now_, effects_);
  scheduler_.Tick(now_, effects_);
  const Effects effects = Take();
  EXPECT_THAT(effects.disconnect, testing::ElementsAre("w1"));
  ASSERT_EQ(effects.assign.size(), 1u);
  EXPECT_EQ(effects.assign[0].worker, "w2");
  EXPECT_EQ(effects.assign[0].start.attempt(), 2u);
  EXPECT_EQ(RunOf(start).failed_attempts(0).worker(), "w1");
}

TEST_F(SchedulerTest, WorkerThatComesBackWithinItsLeaseKeepsItsRun) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager"}, 1, 1));
  const v1::StartRun start = TakeStart();
  scheduler_.WorkerDisconnected("w", now_);
  now_ += kLease / 2;
  v1::WorkerHello hello = MakeHello("w", 1);
  *hello.add_active() = MakeActive(start);
  Join(hello);
  const Effects effects = Take();
  EXPECT_TRUE(effects.assign.empty());
  EXPECT_TRUE(effects.stop.empty());
  Report("w", start, v1::OUTCOME_MEASURED);
  EXPECT_EQ(scheduler_.Find(1)->state(), v1::BENCHMARK_STATE_FINISHED);
}

TEST_F(SchedulerTest, WorkerThatComesBackTooLateIsToldToStop) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager"}, 1, 1));
  const v1::StartRun start = TakeStart();
  now_ += kLease + 1;
  scheduler_.Tick(now_, effects_);
  Take();
  v1::WorkerHello hello = MakeHello("w", 1);
  *hello.add_active() = MakeActive(start);
  Join(hello);
  const Effects effects = Take();
  ASSERT_EQ(effects.stop.size(), 1u);
  EXPECT_EQ(effects.stop[0].stop.attempt(), 1u);
  ASSERT_EQ(effects.assign.size(), 1u);
  EXPECT_EQ(effects.assign[0].start.attempt(), 2u);
}

TEST_F(SchedulerTest, RestartedWorkerWithoutItsRunLosesTheAttemptOnlyIfItsTrainerWasHeardOf) {
  for (const bool heard : {false, true}) {
    Join(MakeHello("w", 1));
    Submit(MakeSpec({"eager"}, 1, 1));
    const v1::StartRun start = TakeStart();
    if (heard) Progress("w", start);
    Join(MakeHello("w", 1));
    const v1::StartRun again = TakeStart();
    EXPECT_EQ(again.attempt(), 2u);
    EXPECT_EQ(RunOf(start).failed_attempts_size(), heard ? 1 : 0);
    Report("w", again, v1::OUTCOME_MEASURED);
    Take();
  }
}

TEST_F(SchedulerTest, UnacknowledgedReportsInAHelloAreCountedOnce) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager"}, 1, 1));
  const v1::StartRun start = TakeStart();
  v1::WorkerHello hello = MakeHello("w", 1);
  *hello.add_unacknowledged() = MakeReport(start, v1::OUTCOME_MEASURED);
  for (int i = 0; i < 2; ++i) {
    Join(hello);
    EXPECT_EQ(Take().acknowledge.size(), 1u);
    EXPECT_EQ(scheduler_.Find(1)->runs_ended(), 1u);
  }
}

TEST_F(SchedulerTest, HandedBackRunCountsNoFailureAndLeavesADrainingWorker) {
  Join(MakeHello("w1", 1));
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, 1);
  spec.set_max_attempts(1);
  Submit(spec);
  const v1::StartRun start = TakeStart();
  scheduler_.WorkerHeard("w1", true, now_, effects_);
  v1::RunHandedBack handed_back;
  *handed_back.mutable_run() = start.run();
  handed_back.set_attempt(1);
  scheduler_.RunHandedBack("w1", handed_back, now_, effects_);
  EXPECT_TRUE(Take().assign.empty());
  Join(MakeHello("w2", 1));
  EXPECT_EQ(TakeStart().attempt(), 2u);
  EXPECT_EQ(RunOf(start).failed_attempts_size(), 0);
}

TEST_F(SchedulerTest, CancelStopsWhatRunsAndKeepsWhatWasMeasured) {
  Join(MakeHello("w", 1));
  const uint64_t id = Submit(MakeSpec({"eager"}, 2, 2));
  Report("w", TakeStart(), v1::OUTCOME_MEASURED);
  const v1::StartRun running = TakeStart();
  EXPECT_TRUE(scheduler_.Cancel(id, "enough", now_, effects_));
  const Effects effects = Take();
  ASSERT_EQ(effects.stop.size(), 1u);
  EXPECT_EQ(effects.stop[0].stop.run().repetition(), running.run().repetition());
  EXPECT_EQ(scheduler_.Find(id)->state(), v1::BENCHMARK_STATE_CANCELLED);
  EXPECT_EQ(scheduler_.Find(id)->jobs(0).runs(0).result().outcome(), v1::OUTCOME_MEASURED);
  EXPECT_EQ(scheduler_.Find(id)->jobs(1).runs(1).result().outcome(), v1::OUTCOME_CANCELLED);
  EXPECT_TRUE(scheduler_.Cancel(id, "again", now_, effects_));
  EXPECT_TRUE(Take().runs.empty());
  EXPECT_FALSE(scheduler_.Cancel(77, "", now_, effects_));
  Submit(MakeSpec({"eager"}, 1, 1));
  EXPECT_EQ(TakeStart().run().benchmark_id(), 2u);
}

TEST_F(SchedulerTest, RestoredRunsWaitForTheirWorkerForOneLease) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager"}, 1, 2));
  const v1::StartRun start = TakeStart();
  Scheduler restarted(kLease);
  restarted.Restore({*scheduler_.Find(1)}, now_);
  ASSERT_EQ(restarted.CheckInvariants(), absl::OkStatus());
  Effects effects;
  restarted.WorkerJoined(MakeHello("other", 1), now_, effects);
  EXPECT_TRUE(effects.assign.empty()) << "the group is still bound to the slot of its worker";
  v1::WorkerHello hello = MakeHello("w", 1);
  *hello.add_active() = MakeActive(start);
  restarted.WorkerJoined(hello, now_, effects);
  restarted.RunReported("w", MakeReport(start, v1::OUTCOME_MEASURED), now_, effects);
  ASSERT_EQ(restarted.CheckInvariants(), absl::OkStatus());
  ASSERT_EQ(effects.assign.size(), 1u);
  EXPECT_EQ(effects.assign[0].worker, "w");
  EXPECT_EQ(effects.assign[0].start.run().repetition(), 1u);
}

TEST_F(SchedulerTest, RestoredRunOfAWorkerThatNeverComesGoesElsewhere) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager"}, 1, 1));
  TakeStart();
  Scheduler restarted(kLease);
  restarted.Restore({*scheduler_.Find(1)}, now_);
  Effects effects;
  restarted.WorkerJoined(MakeHello("other", 1), now_ + kLease, effects);
  restarted.Tick(now_ + kLease + 1, effects);
  ASSERT_EQ(restarted.CheckInvariants(), absl::OkStatus());
  ASSERT_EQ(effects.assign.size(), 1u);
  EXPECT_EQ(effects.assign[0].start.attempt(), 2u);
}

TEST_F(SchedulerTest, RequirementsAndBackendsDecideWhatFitsAndExplainSaysWhy) {
  v1::BenchmarkSpec cuda = MakeSpec({"eager"}, 1, 1);
  cuda.mutable_requirements()->set_device_kind(v1::DEVICE_KIND_CUDA);
  const uint64_t needs_cuda = Submit(cuda);
  EXPECT_EQ(scheduler_.Explain(needs_cuda)[0].text(), "0 of 1 runs ended; waits: no worker is connected");
  EXPECT_EQ(scheduler_.Explain(needs_cuda)[0].waits(), "no worker is connected");
  Join(MakeHello("w", 1));
  EXPECT_TRUE(Take().assign.empty());
  EXPECT_THAT(scheduler_.Explain(needs_cuda)[0].text(), testing::HasSubstr("needs cuda"));
  const uint64_t needs_flash = Submit(MakeSpec({"flash2"}, 1, 1));
  EXPECT_THAT(scheduler_.Explain(needs_flash)[0].text(), testing::HasSubstr("no backend flash2"));
  v1::BenchmarkSpec label = MakeSpec({"eager"}, 1, 1);
  (*label.mutable_requirements()->mutable_labels())["rack"] = "a";
  EXPECT_THAT(scheduler_.Explain(Submit(label))[0].text(), testing::HasSubstr("rack=a"));
  v1::BenchmarkSpec name = MakeSpec({"eager"}, 1, 2);
  name.mutable_requirements()->set_device_name_contains("test");
  Submit(name);
  EXPECT_EQ(TakeStart().run().benchmark_id(), 4u);
  const uint64_t waits = Submit(MakeSpec({"eager"}, 1, 1));
  EXPECT_EQ(scheduler_.Explain(waits)[0].waits(), "every slot that fits is busy (w cpu0 with benchmark 4)");
  EXPECT_EQ(scheduler_.Explain(4)[0].waits(), "") << "one of its runs is on a slot";
}

TEST_F(SchedulerTest, SlotThatIsGoneGivesItsRunToAnother) {
  Join(MakeHello("w", 2));
  Submit(MakeSpec({"eager"}, 2, 1));
  ASSERT_EQ(Take().assign.size(), 2u);
  Join(MakeHello("w", 1));
  const v1::StartRun start = TakeStart();
  EXPECT_EQ(start.slot(), "cpu0");
  EXPECT_EQ(scheduler_.counts().queued, 1u);
}

}  // namespace
}  // namespace attnfleet::server
