#include "server/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <map>
#include <string>
#include <vector>

#include "fleet_fixture.h"

namespace attnfleet::server {
namespace {

constexpr int64_t kLease = 1'000;

class SchedulerTest : public testing::Test {
 protected:
  explicit SchedulerTest(bool closed = false) : scheduler_(kLease, closed) {}

  // What the last event made, with the invariants checked.
  Effects Take() {
    EXPECT_EQ(scheduler_.CheckInvariants(), absl::OkStatus());
    Effects taken = std::move(effects_);
    effects_ = {};
    return taken;
  }

  uint64_t Submit(const v1::BenchmarkSpec& spec) { return scheduler_.Submit(spec, now_, effects_); }

  void Join(const v1::WorkerHello& hello) { scheduler_.WorkerJoined(hello, now_, effects_); }

  // A benchmark on every one of these new workers of one slot each, of which max_slots lets one run at a time.
  void SubmitForNodesInTurn(int repetitions, std::initializer_list<const char*> workers) {
    v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, repetitions);
    spec.set_placement(v1::PLACEMENT_EVERY);
    spec.set_max_slots(1);
    for (const char* worker : workers) Join(MakeHello(worker, 1));
    Submit(spec);
  }

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

  void CrashOnW1WhileW2IsBusy() {
    Join(MakeHello("w1", 1));
    Submit(MakeSpec({"eager"}, 2, 1));
    const v1::StartRun crashes = TakeStart();
    Join(MakeHello("w2", 1));
    Take();
    Report("w1", crashes, v1::OUTCOME_FAILED);
    EXPECT_TRUE(Take().assign.empty());
  }

  v1::StartRun GiveTheOnlyAttemptToW1WhichDrains() {
    Join(MakeHello("w1", 1));
    v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, 1);
    spec.set_max_attempts(1);
    Submit(spec);
    v1::StartRun start = TakeStart();
    scheduler_.WorkerHeard("w1", true, now_, effects_);
    return start;
  }

  const v1::Run& RunOf(const v1::StartRun& start) { return *scheduler_.FindRun(start.run()); }

  v1::Benchmark Whole(uint64_t id) { return WithRuns(*scheduler_.TakePicture(id)); }

  // What the store holds of a benchmark's runs.
  std::vector<v1::Run> RowsOf(uint64_t id) {
    std::vector<v1::Run> rows;
    const v1::Benchmark benchmark = Whole(id);
    for (const v1::Job& job : benchmark.jobs()) {
      for (const v1::Run& run : job.runs()) {
        if (scheduler_.FindRun(run.key()) != nullptr) rows.push_back(run);
      }
    }
    return rows;
  }

  std::vector<v1::Explanation> Explain(uint64_t id) { return server::Explain(Whole(id), scheduler_.WhyItWaits(id)); }

  v1::BenchmarkState StateOf(uint64_t id) { return scheduler_.Head(id)->state(); }

  int64_t now_ = 1'000'000;
  Scheduler scheduler_;
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
  EXPECT_EQ(StateOf(1), v1::BENCHMARK_STATE_FINISHED);
}

TEST_F(SchedulerTest, GroupsRunSideBySideOnDifferentSlots) {
  Join(MakeHello("w", 2));
  Submit(MakeSpec({"eager"}, 3, 1));
  EXPECT_EQ(Take().assign.size(), 2u);
  EXPECT_EQ(scheduler_.counts().queued(), 1u);
}

TEST_F(SchedulerTest, OldestBenchmarkGoesFirst) {
  Submit(MakeSpec({"eager"}, 1, 1));
  Submit(MakeSpec({"eager"}, 1, 1));
  Join(MakeHello("w", 1));
  EXPECT_EQ(TakeStart().run().benchmark_id(), 1u);
}

TEST_F(SchedulerTest, ListOfLargeSpecsIsShorter) {
  for (int i = 0; i < 3; ++i) Submit(MakeSpec({"eager"}, 50'000, 1));
  const std::vector<v1::Benchmark> first = scheduler_.List(10, 0);
  ASSERT_EQ(first.size(), 2u);
  EXPECT_EQ(first[1].id(), 2u);
  EXPECT_EQ(scheduler_.List(10, 2).at(0).id(), 1u);
  Submit(MakeSpec({"eager"}, 100'000, 1));
  EXPECT_EQ(scheduler_.List(10, 0).size(), 1u) << "there is always one";
}

TEST_F(SchedulerTest, PictureStaysAsItWasTaken) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager"}, 1, 2));
  const v1::StartRun start = TakeStart();
  const Picture picture = *scheduler_.TakePicture(1);
  const std::shared_ptr<const v1::Run> shared = scheduler_.ShareRun(start.run());
  EXPECT_EQ(picture.runs.at(0), shared) << "not a copy";
  Progress("w", start);
  Report("w", start, v1::OUTCOME_MEASURED);
  EXPECT_EQ(shared->state(), v1::RUN_STATE_ASSIGNED);
  EXPECT_EQ(WithRuns(picture).jobs(0).runs(0).state(), v1::RUN_STATE_ASSIGNED);
  EXPECT_EQ(RunOf(start).state(), v1::RUN_STATE_ENDED);
  EXPECT_EQ(scheduler_.CheckInvariants(), absl::OkStatus());
}

TEST_F(SchedulerTest, OutOfMemoryAndUnsupportedAreResults) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager", "sdpa"}, 1, 1));
  Report("w", TakeStart(), v1::OUTCOME_OUT_OF_MEMORY);
  Report("w", TakeStart(), v1::OUTCOME_UNSUPPORTED);
  EXPECT_TRUE(Take().assign.empty());
  EXPECT_EQ(StateOf(1), v1::BENCHMARK_STATE_FINISHED);
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
  const v1::Run run = Whole(1).jobs(0).runs(0);
  EXPECT_EQ(run.result().outcome(), v1::OUTCOME_FAILED);
  EXPECT_EQ(run.failed_attempts_size(), 2);
}

TEST_F(SchedulerTest, BrokenSlotCostsEachLaneOneAttemptAndNoRun) {
  for (const char* name : {"w1", "w2", "w3", "bad"}) Join(MakeHello(name, 1));
  Submit(MakeSpec({"eager"}, 10, 2));
  std::vector<Effects::Assignment> running = Take().assign;
  const auto is_bad = [](const Effects::Assignment& one) { return one.worker == "bad"; };
  while (!running.empty()) {
    auto next = std::find_if(running.begin(), running.end(), is_bad);  // it crashes before the others get on
    if (next == running.end()) next = running.begin();
    const Effects::Assignment one = *next;
    running.erase(next);
    Report(one.worker, one.start, is_bad(one) ? v1::OUTCOME_FAILED : v1::OUTCOME_MEASURED);
    const Effects effects = Take();
    running.insert(running.end(), effects.assign.begin(), effects.assign.end());
  }
  const v1::Benchmark benchmark = Whole(1);
  for (const v1::Job& job : benchmark.jobs()) {
    for (const v1::Run& run : job.runs()) {
      EXPECT_EQ(run.result().outcome(), v1::OUTCOME_MEASURED) << FormatRunKey(run.key());
      EXPECT_LE(run.failed_attempts_size(), 1);
    }
  }
}

TEST_F(SchedulerTest, CrashedRunWaitsForAnotherWorkerWhileThereIsOne) {
  Join(MakeHello("w1", 1));
  Submit(MakeSpec({"eager"}, 2, 1));
  const v1::StartRun crashes = TakeStart();
  Join(MakeHello("w2", 1));
  const v1::StartRun other = TakeStart();
  Report("w1", crashes, v1::OUTCOME_FAILED);
  EXPECT_TRUE(Take().assign.empty());
  EXPECT_THAT(Explain(1)[0].text(),
              testing::HasSubstr("its last attempt crashed on w1; it waits for another slot, and every other slot that "
                                 "fits is busy (w2 cpu0 with benchmark 1)"));
  // Also after a restart.
  Scheduler restarted(kLease);
  ASSERT_EQ(restarted.Restore(*scheduler_.Head(1), RowsOf(1), now_), absl::OkStatus());
  Effects effects;
  v1::WorkerHello hello = MakeHello("w2", 1);
  *hello.add_active() = MakeActive(other);
  restarted.WorkerJoined(hello, now_, effects);
  restarted.WorkerJoined(MakeHello("w1", 1), now_, effects);
  EXPECT_TRUE(effects.assign.empty());
  EXPECT_EQ(restarted.CheckInvariants(), absl::OkStatus());

  Submit(MakeSpec({"eager"}, 1, 1));
  EXPECT_EQ(TakeStart().run().benchmark_id(), 2u) << "w1 takes what did not crash there";
  Report("w2", other, v1::OUTCOME_MEASURED);
  const v1::StartRun again = TakeStart();
  EXPECT_EQ(RunOf(again).worker(), "w2");
  EXPECT_EQ(again.attempt(), 2u);
}

TEST_F(SchedulerTest, CrashedRunGoesBackWhenTheOtherWorkerIsDrained) {
  CrashOnW1WhileW2IsBusy();
  scheduler_.SetDrained("w2", true, now_, effects_);
  const v1::StartRun again = TakeStart();
  EXPECT_EQ(RunOf(again).worker(), "w1");
  EXPECT_EQ(again.attempt(), 2u);
}

TEST_F(SchedulerTest, CrashedRunGoesBackWhenTheOtherWorkerIsGone) {
  CrashOnW1WhileW2IsBusy();
  scheduler_.WorkerDisconnected("w2", now_);
  Take();
  scheduler_.Tick(now_, effects_);
  const v1::StartRun again = TakeStart();
  EXPECT_EQ(RunOf(again).worker(), "w1");
  EXPECT_EQ(again.attempt(), 2u);
}

TEST_F(SchedulerTest, LaneThatHasMeasuredStaysWhereItsBackendCrashes) {
  Join(MakeHello("w1", 1));
  Submit(MakeSpec({"eager", "sdpa"}, 1, 2));
  Report("w1", TakeStart(), v1::OUTCOME_MEASURED);
  Join(MakeHello("w2", 1));
  const v1::StartRun crashes = TakeStart();
  EXPECT_EQ(crashes.backend(), "sdpa");
  Report("w1", crashes, v1::OUTCOME_FAILED);
  const v1::StartRun again = TakeStart();
  EXPECT_EQ(RunOf(again).worker(), "w1");
  EXPECT_EQ(again.attempt(), 2u);
}

TEST_F(SchedulerTest, LaneLeavesTheWorkerWhereItsOnlyAttemptCrashed) {
  Join(MakeHello("w1", 1));
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, 2);
  spec.set_max_attempts(1);
  Submit(spec);
  const v1::StartRun crashes = TakeStart();
  Join(MakeHello("w2", 1));
  Report("w1", crashes, v1::OUTCOME_FAILED);
  EXPECT_EQ(RunOf(crashes).state(), v1::RUN_STATE_ENDED);
  const v1::StartRun next = TakeStart();
  EXPECT_EQ(next.run().repetition(), 1u);
  EXPECT_EQ(RunOf(next).worker(), "w2");
}

TEST_F(SchedulerTest, IdleSlotThatCrashedLastIsTakenLast) {
  Join(MakeHello("w1", 1));
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, 1);
  spec.set_max_attempts(1);
  Submit(spec);
  Report("w1", TakeStart(), v1::OUTCOME_FAILED);
  Join(MakeHello("w2", 1));
  Take();
  Submit(spec);
  EXPECT_EQ(RunOf(TakeStart()).worker(), "w2");
  Submit(spec);
  const v1::StartRun start = TakeStart();
  EXPECT_EQ(RunOf(start).worker(), "w1");
  Report("w1", start, v1::OUTCOME_MEASURED);
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
  EXPECT_EQ(Explain(1)[0].text(), "1 of 1 runs ended, the last on w cpu0: failed: stopped after its time limit");
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
  EXPECT_EQ(scheduler_.Head(1)->runs_ended(), 1u);
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
  EXPECT_EQ(StateOf(1), v1::BENCHMARK_STATE_FINISHED);
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
    EXPECT_EQ(scheduler_.Head(1)->runs_ended(), 1u);
  }
}

TEST_F(SchedulerTest, HandedBackRunCountsNoFailureAndLeavesADrainingWorker) {
  const v1::StartRun start = GiveTheOnlyAttemptToW1WhichDrains();
  v1::RunHandedBack handed_back;
  *handed_back.mutable_run() = start.run();
  handed_back.set_attempt(1);
  scheduler_.RunHandedBack("w1", handed_back, now_, effects_);
  EXPECT_TRUE(Take().assign.empty());
  Join(MakeHello("w2", 1));
  EXPECT_EQ(TakeStart().attempt(), 2u);
  EXPECT_EQ(RunOf(start).failed_attempts_size(), 0);
}

TEST_F(SchedulerTest, RunThatWasGivenToAWorkerWhichWasLeavingIsNoLossOfIt) {
  const v1::StartRun start = GiveTheOnlyAttemptToW1WhichDrains();
  scheduler_.WorkerDisconnected("w1", now_);
  Join(MakeHello("w2", 1));
  EXPECT_TRUE(Take().assign.empty());
  now_ += kLease;
  scheduler_.WorkerHeard("w2", false, now_, effects_);
  ++now_;
  scheduler_.WorkerHeard("w2", false, now_, effects_);
  EXPECT_EQ(TakeStart().attempt(), 2u);
  EXPECT_EQ(RunOf(start).failed_attempts_size(), 0);
}

TEST_F(SchedulerTest, SlotWhereATrainerCrashedIsTakenLastAlsoAfterARunWasHandedBack) {
  Join(MakeHello("w1", 1));
  Submit(MakeSpec({"eager"}, 1, 2));
  Report("w1", TakeStart(), v1::OUTCOME_FAILED);
  Report("w1", TakeStart(), v1::OUTCOME_CANCELLED);
  Report("w1", TakeStart(), v1::OUTCOME_MEASURED);
  Report("w1", TakeStart(), v1::OUTCOME_FAILED);
  Report("w1", TakeStart(), v1::OUTCOME_CANCELLED);
  scheduler_.Cancel(1, "enough", now_, effects_);
  Join(MakeHello("w2", 1));
  Take();
  Submit(MakeSpec({"eager"}, 1, 1));
  const Effects effects = Take();
  ASSERT_EQ(effects.assign.size(), 1u);
  EXPECT_EQ(effects.assign[0].worker, "w2");
}

TEST_F(SchedulerTest, DrainIsWaitedForLongerByAsMuchAsTheCoordinatorStoodStill) {
  Join(MakeHello("some", 1));
  Join(MakeHello("all", 1, {"eager", "flash2"}));
  Submit(MakeSpec({"eager", "flash2"}, 2, 1));
  Take();
  scheduler_.WorkerHeard("all", true, now_, effects_);
  now_ += 5 * kLease;
  scheduler_.ForgiveSilence(5 * kLease, now_);
  scheduler_.WorkerHeard("some", false, now_, effects_);
  EXPECT_TRUE(Take().assign.empty());
  now_ += kLease;
  scheduler_.WorkerHeard("some", false, now_, effects_);
  EXPECT_EQ(TakeStart().backend(), "eager");
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
  EXPECT_EQ(StateOf(id), v1::BENCHMARK_STATE_CANCELLED);
  EXPECT_EQ(Whole(id).jobs(0).runs(0).result().outcome(), v1::OUTCOME_MEASURED);
  EXPECT_EQ(Whole(id).jobs(1).runs(1).result().outcome(), v1::OUTCOME_CANCELLED);
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
  ASSERT_EQ(restarted.Restore(*scheduler_.Head(1), RowsOf(1), now_), absl::OkStatus());
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

TEST_F(SchedulerTest, ShapeThatWaitsComesBackToItsSlotAfterARestart) {
  Join(MakeHello("w1", 1));
  Submit(MakeSpec({"eager"}, 1, 3));
  const v1::StartRun first = TakeStart();
  scheduler_.SetPaused(1, true, now_, effects_);
  Report("w1", first, v1::OUTCOME_MEASURED);
  EXPECT_TRUE(Take().assign.empty());
  for (const bool comes_back : {true, false}) {
    Scheduler restarted(kLease);
    ASSERT_EQ(restarted.Restore(*scheduler_.Head(1), RowsOf(1), now_), absl::OkStatus());
    ASSERT_EQ(restarted.CheckInvariants(), absl::OkStatus());
    Effects effects;
    restarted.WorkerJoined(MakeHello("w2", 1), now_, effects);
    restarted.SetPaused(1, false, now_, effects);
    EXPECT_TRUE(effects.assign.empty()) << "its repetitions are compared on one device";
    if (comes_back) restarted.WorkerJoined(MakeHello("w1", 1), now_ + 1, effects);
    restarted.WorkerHeard("w2", false, now_ + kLease, effects);
    restarted.Tick(now_ + kLease + 1, effects);
    ASSERT_EQ(restarted.CheckInvariants(), absl::OkStatus());
    ASSERT_EQ(effects.assign.size(), 1u);
    EXPECT_EQ(effects.assign[0].worker, comes_back ? "w1" : "w2");
  }
}

TEST_F(SchedulerTest, DrainedWorkerIsKnownAsDrainedBeforeItIsBack) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager"}, 1, 1));
  TakeStart();
  Scheduler restarted(kLease);
  restarted.RestoreDrained("w");
  restarted.RestoreDrained("v");  // with nothing to do
  ASSERT_EQ(restarted.Restore(*scheduler_.Head(1), RowsOf(1), now_), absl::OkStatus());
  for (const char* name : {"w", "v"}) EXPECT_TRUE(restarted.FindWorker(name)->drained());
  std::map<std::string, bool> listed;
  for (const v1::WorkerStatus& worker : restarted.Workers()) listed[worker.info().name()] = worker.drained();
  EXPECT_THAT(listed, testing::ElementsAre(testing::Pair("v", true), testing::Pair("w", true)));
  Effects effects;
  EXPECT_TRUE(restarted.SetDrained("v", false, now_, effects));
  EXPECT_FALSE(restarted.FindWorker("v").has_value());
}

// The run brought the whole host down, and the coordinator with it.
TEST_F(SchedulerTest, RunThatTakesTheCoordinatorWithItsWorkerIsQuarantined) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager"}, 1, 1));
  v1::StartRun start = TakeStart();
  const v1::Benchmark head = *scheduler_.Head(1);
  Progress("w", start);
  EXPECT_EQ(effects_.runs.size(), 1u) << "it is saved that it was begun";
  std::vector<v1::Run> stored = RowsOf(1);
  effects_.runs.clear();
  Progress("w", start);
  EXPECT_TRUE(effects_.runs.empty()) << "once";
  for (const bool last : {false, true}) {
    Scheduler restarted(kLease);
    ASSERT_EQ(restarted.Restore(head, stored, now_), absl::OkStatus());
    Effects effects;
    restarted.WorkerJoined(MakeHello("w", 1), now_, effects);
    ASSERT_EQ(restarted.FindRun(start.run())->quarantined(), last);
    if (last) break;
    ASSERT_EQ(effects.assign.size(), 1u);
    v1::RunProgress progress;
    *progress.mutable_run() = start.run();
    progress.set_attempt(effects.assign[0].start.attempt());
    restarted.RunProgressed("w", progress, now_, effects);
    stored = {*restarted.FindRun(start.run())};
  }
}

TEST_F(SchedulerTest, RestoredRunOfAWorkerThatNeverComesGoesElsewhere) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager"}, 1, 1));
  TakeStart();
  Scheduler restarted(kLease);
  ASSERT_EQ(restarted.Restore(*scheduler_.Head(1), RowsOf(1), now_), absl::OkStatus());
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
  EXPECT_EQ(Explain(needs_cuda)[0].text(), "0 of 1 runs ended; waits: no worker is connected");
  EXPECT_EQ(Explain(needs_cuda)[0].waits(), "no worker is connected");
  EXPECT_FALSE(Explain(needs_cuda)[0].unfit());
  Join(MakeHello("w", 1));
  EXPECT_TRUE(Take().assign.empty());
  EXPECT_THAT(Explain(needs_cuda)[0].text(), testing::HasSubstr("needs cuda"));
  EXPECT_TRUE(Explain(needs_cuda)[0].unfit());
  const uint64_t needs_flash = Submit(MakeSpec({"flash2"}, 1, 1));
  EXPECT_THAT(Explain(needs_flash)[0].text(), testing::HasSubstr("no backend flash2"));
  v1::BenchmarkSpec label = MakeSpec({"eager"}, 1, 1);
  (*label.mutable_requirements()->mutable_labels())["rack"] = "a";
  EXPECT_THAT(Explain(Submit(label))[0].text(), testing::HasSubstr("rack=a"));
  v1::BenchmarkSpec name = MakeSpec({"eager"}, 1, 2);
  name.mutable_requirements()->set_device_name_contains("test");
  Submit(name);
  EXPECT_EQ(TakeStart().run().benchmark_id(), 4u);
  const uint64_t waits = Submit(MakeSpec({"eager"}, 1, 1));
  EXPECT_EQ(Explain(waits)[0].waits(), "every slot that fits is busy (w cpu0 with benchmark 4); it is next");
  EXPECT_FALSE(Explain(waits)[0].unfit());
  EXPECT_EQ(Explain(4)[0].waits(), "") << "one of its runs is on a slot";
}

TEST_F(SchedulerTest, AStepGoesOnlyToWorkersThatAnnounceIt) {
  Join(MakeHello("old", 1));
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, 1);
  spec.mutable_training()->set_step(v1::TRAINING_STEP_FUSED);
  const uint64_t fused = Submit(spec);
  EXPECT_TRUE(Take().assign.empty());
  EXPECT_EQ(Explain(fused)[0].waits(), "no slot fits: old cpu0 does not announce the step fused; a newer worker does");
  EXPECT_TRUE(Explain(fused)[0].unfit());
  spec.mutable_training()->set_step(v1::TRAINING_STEP_REFERENCE);
  const uint64_t reference = Submit(spec);
  const v1::StartRun there = TakeStart();
  EXPECT_EQ(there.run().benchmark_id(), reference) << "which every worker knows, announced or not";
  v1::WorkerHello hello = MakeHello("new", 1);
  hello.mutable_worker()->add_steps(v1::TRAINING_STEP_REFERENCE);
  hello.mutable_worker()->add_steps(v1::TRAINING_STEP_FUSED);
  Join(hello);
  const Effects effects = Take();
  ASSERT_EQ(effects.assign.size(), 1u);
  EXPECT_EQ(effects.assign[0].worker, "new");
  EXPECT_EQ(effects.assign[0].start.run().benchmark_id(), fused);
}

TEST_F(SchedulerTest, HigherPriorityGoesFirstAndDoesNotStopWhatRuns) {
  Join(MakeHello("w", 1));
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, 2);
  Submit(spec);
  const v1::StartRun running = TakeStart();
  Submit(spec);
  spec.set_priority(5);
  const uint64_t urgent = Submit(spec);
  EXPECT_TRUE(Take().assign.empty());
  EXPECT_THAT(Explain(2)[0].text(), testing::HasSubstr("benchmark 3 goes first: its priority is 5"));
  Report("w", running, v1::OUTCOME_MEASURED);
  for (int i = 0; i < 2; ++i) {
    const v1::StartRun start = TakeStart();
    EXPECT_EQ(start.run().benchmark_id(), urgent);
    Report("w", start, v1::OUTCOME_MEASURED);
  }
  EXPECT_EQ(TakeStart().run().benchmark_id(), 1u) << "what has begun on the slot goes on before another begins";
}

TEST_F(SchedulerTest, SubmitterWithTheFewestSlotsGoesFirst) {
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 6, 1);
  spec.set_submitter("greedy");
  Submit(spec);
  Submit(spec);
  spec.set_submitter("modest");
  Submit(spec);
  Join(MakeHello("w", 4));
  std::map<uint64_t, int> slots;
  for (const Effects::Assignment& one : Take().assign) ++slots[one.start.run().benchmark_id()];
  EXPECT_THAT(slots, testing::UnorderedElementsAre(testing::Pair(1, 2), testing::Pair(3, 2)));
  EXPECT_THAT(Explain(2)[0].text(), testing::HasSubstr("goes first"));
}

TEST_F(SchedulerTest, FairShareHoldsForPlacementEvery) {
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, 2);
  spec.set_placement(v1::PLACEMENT_EVERY);
  const auto order = [this](const std::string& worker) {
    std::vector<uint64_t> benchmarks;
    for (Effects effects = Take(); !effects.assign.empty(); effects = Take()) {
      benchmarks.push_back(effects.assign.at(0).start.run().benchmark_id());
      Report(worker, effects.assign.at(0).start, v1::OUTCOME_MEASURED);
    }
    return benchmarks;
  };
  Join(MakeHello("w", 1));
  spec.set_submitter("alice");
  for (int i = 0; i < 4; ++i) Submit(spec);
  spec.set_submitter("bob");
  Submit(spec);
  EXPECT_THAT(order("w"), testing::ElementsAre(1, 1, 5, 5, 2, 2, 3, 3, 4, 4));
  Submit(MakeSpec({"eager"}, 1, 1));  // keeps the slot busy until all are there
  v1::BenchmarkSpec any = MakeSpec({"eager"}, 3, 1);
  any.set_submitter("bob");
  Submit(any);
  spec.set_submitter("alice");
  for (int i = 0; i < 3; ++i) Submit(spec);
  EXPECT_THAT(order("w"), testing::ElementsAre(6, 7, 8, 8, 7, 9, 9, 7, 10, 10));
}

TEST_F(SchedulerTest, NodeOfTheSubmitterWithTheFewestSlotsGoesFirst) {
  Join(MakeHello("w1", 1));
  v1::BenchmarkSpec any = MakeSpec({"eager"}, 1, 1);
  Submit(any);
  const v1::StartRun first = TakeStart();
  v1::BenchmarkSpec every = any;
  every.set_placement(v1::PLACEMENT_EVERY);
  for (const char* submitter : {"alice", "bob"}) {
    every.set_submitter(submitter);
    Submit(every);
  }
  Join(MakeHello("w2", 2));
  any.set_submitter("alice");
  Submit(any);
  TakeStart();
  any.set_submitter("bob");
  Submit(any);
  Report("w2", TakeStart(), v1::OUTCOME_MEASURED);
  Report("w1", first, v1::OUTCOME_MEASURED);
  EXPECT_EQ(TakeStart().run().benchmark_id(), 3u) << "bob's, who was served last and holds no slot";
}

TEST_F(SchedulerTest, MaxSlotsLimitsWhatRunsAtOnce) {
  Join(MakeHello("w", 4));
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 5, 1);
  spec.set_max_slots(2);
  Submit(spec);
  const Effects effects = Take();
  ASSERT_EQ(effects.assign.size(), 2u);
  EXPECT_THAT(Explain(1)[4].text(), testing::HasSubstr("as many as its max_slots allows"));
  Report("w", effects.assign[0].start, v1::OUTCOME_MEASURED);
  EXPECT_EQ(Take().assign.size(), 1u);
}

TEST_F(SchedulerTest, DeadlineCancelsWhatHasNotEndedAndKeepsTheRest) {
  Join(MakeHello("w", 1));
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 3, 1);
  spec.set_deadline_seconds(10);
  Submit(spec);
  Report("w", TakeStart(), v1::OUTCOME_MEASURED);
  const v1::StartRun running = TakeStart();
  now_ += 9'999;
  scheduler_.WorkerHeard("w", false, now_, effects_);
  EXPECT_TRUE(Take().stop.empty());
  now_ += 1;
  scheduler_.Tick(now_, effects_);
  const Effects effects = Take();
  ASSERT_EQ(effects.stop.size(), 1u);
  EXPECT_EQ(effects.stop[0].stop.run().job_index(), running.run().job_index());
  EXPECT_EQ(effects.cancelled_unassigned, 1u);
  EXPECT_EQ(StateOf(1), v1::BENCHMARK_STATE_CANCELLED);
  const v1::Benchmark benchmark = Whole(1);
  EXPECT_EQ(benchmark.jobs(0).runs(0).result().outcome(), v1::OUTCOME_MEASURED);
  EXPECT_THAT(benchmark.jobs(2).runs(0).result().reason(), testing::HasSubstr("its deadline passed, 10s after"));
  EXPECT_THAT(Explain(1)[2].text(), testing::HasSubstr("deadline"));
}

TEST_F(SchedulerTest, PauseStartsNothingNewUntilResumedAlsoAfterARestart) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager", "sdpa"}, 2, 1));
  const v1::StartRun start = TakeStart();
  EXPECT_TRUE(scheduler_.SetPaused(1, true, now_, effects_));
  const Effects paused = Take();
  EXPECT_TRUE(paused.stop.empty()) << "what runs goes on";
  EXPECT_TRUE(paused.benchmarks.contains(1));
  Report("w", start, v1::OUTCOME_MEASURED);
  EXPECT_TRUE(Take().assign.empty());
  EXPECT_THAT(Explain(1)[1].text(), testing::HasSubstr("attnfleet resume 1"));

  Scheduler restarted(kLease);
  ASSERT_EQ(restarted.Restore(*scheduler_.Head(1), RowsOf(1), now_), absl::OkStatus());
  Effects effects;
  restarted.WorkerJoined(MakeHello("w", 1), now_, effects);
  EXPECT_TRUE(effects.assign.empty());
  EXPECT_TRUE(restarted.SetPaused(1, false, now_, effects));
  ASSERT_EQ(effects.assign.size(), 1u);
  EXPECT_EQ(effects.assign[0].start.backend(), "sdpa");
  EXPECT_EQ(restarted.CheckInvariants(), absl::OkStatus());
  EXPECT_FALSE(restarted.SetPaused(7, true, now_, effects));
}

TEST_F(SchedulerTest, DrainedWorkerFinishesWhatItRunsAndGetsNothingNewHoweverOftenItReconnects) {
  Join(MakeHello("w1", 1));
  Submit(MakeSpec({"eager"}, 1, 3));
  const v1::StartRun start = TakeStart();
  EXPECT_TRUE(scheduler_.SetDrained("w1", true, now_, effects_));
  const Effects drained = Take();
  EXPECT_TRUE(drained.stop.empty());
  EXPECT_THAT(drained.drained, testing::ElementsAre(testing::Pair("w1", true)));
  Report("w1", start, v1::OUTCOME_MEASURED);
  EXPECT_TRUE(Take().assign.empty());
  Join(MakeHello("w1", 1));
  EXPECT_TRUE(Take().assign.empty());
  EXPECT_THAT(Explain(1)[0].text(), testing::HasSubstr("w1 cpu0 is drained (attnfleet workers undrain w1)"));
  EXPECT_TRUE(scheduler_.FindWorker("w1")->drained());
  Join(MakeHello("w2", 1));
  EXPECT_EQ(Take().assign[0].worker, "w2") << "its group goes elsewhere";
  EXPECT_TRUE(scheduler_.SetDrained("w1", false, now_, effects_));
  Submit(MakeSpec({"eager"}, 1, 1));
  EXPECT_EQ(Take().assign[0].worker, "w1");
  EXPECT_FALSE(scheduler_.SetDrained("nobody", true, now_, effects_));
}

TEST_F(SchedulerTest, DrainOutlivesTheCoordinator) {
  scheduler_.RestoreDrained("w");
  Submit(MakeSpec({"eager"}, 1, 1));
  Join(MakeHello("w", 1));
  EXPECT_TRUE(Take().assign.empty());
  EXPECT_TRUE(scheduler_.SetDrained("w", false, now_, effects_));
  EXPECT_EQ(Take().assign.size(), 1u);
}

TEST_F(SchedulerTest, RunThatLosesItsWorkerTwiceIsQuarantinedWithItsEvidence) {
  Submit(MakeSpec({"eager"}, 1, 2));
  for (const char* worker : {"w1", "w2"}) {
    Join(MakeHello(worker, 1));
    const v1::StartRun start = TakeStart();
    EXPECT_EQ(start.run().repetition(), 0u);
    Progress(worker, start);
    now_ += kLease + 1;
    scheduler_.Tick(now_, effects_);
    EXPECT_TRUE(Take().assign.empty());
  }
  const v1::Run run = Whole(1).jobs(0).runs(0);
  EXPECT_TRUE(run.quarantined());
  EXPECT_EQ(run.result().outcome(), v1::OUTCOME_FAILED);
  ASSERT_EQ(run.failed_attempts_size(), 2);
  EXPECT_TRUE(run.failed_attempts(1).worker_lost());
  EXPECT_EQ(run.failed_attempts(1).worker(), "w2");
  EXPECT_THAT(run.result().reason(), testing::HasSubstr("attempt 1 on w1 cpu0 (worker w1 was lost"));
  EXPECT_THAT(Explain(1)[0].text(), testing::HasSubstr("quarantined, it lost its worker 2 times: attempt 1 on w1"));
  Join(MakeHello("w3", 1));
  EXPECT_EQ(TakeStart().run().repetition(), 1u) << "the others go on";
}

TEST_F(SchedulerTest, LostRunGoesToAnotherWorkerThoughItsOwnIsBack) {
  Join(MakeHello("w1", 1));
  Submit(MakeSpec({"eager"}, 1, 1));
  const v1::StartRun start = TakeStart();
  Progress("w1", start);
  Join(MakeHello("w2", 1));
  Take();
  Join(MakeHello("w1", 1));  // came back without it
  const Effects effects = Take();
  ASSERT_EQ(effects.assign.size(), 1u);
  EXPECT_EQ(effects.assign[0].worker, "w2");
}

TEST_F(SchedulerTest, CountHoldsABenchmarkBackUntilSoManySlotsFit) {
  Join(MakeHello("w1", 1));
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, 1);
  spec.mutable_requirements()->set_count(3);
  Submit(spec);
  EXPECT_TRUE(Take().assign.empty());
  EXPECT_THAT(Explain(1)[0].text(), testing::HasSubstr("1 slot fits and it needs 3 (count)"));
  Join(MakeHello("w2", 2));
  EXPECT_EQ(Take().assign.size(), 1u);
}

TEST_F(SchedulerTest, PlacementEveryGivesEachSlotTheWholeBenchmark) {
  Join(MakeHello("w1", 1));
  v1::BenchmarkSpec spec = MakeSpec({"eager", "sdpa"}, 2, 1);
  spec.set_placement(v1::PLACEMENT_EVERY);
  spec.mutable_requirements()->set_count(2);
  Submit(spec);
  EXPECT_EQ(scheduler_.counts().queued(), 4u);
  EXPECT_TRUE(Take().assign.empty());
  Join(MakeHello("w2", 1));
  Effects effects = Take();
  EXPECT_EQ(scheduler_.Head(1)->runs_total(), 8u);
  EXPECT_EQ(scheduler_.Head(1)->nodes_size(), 2);
  Join(MakeHello("late", 1));  // not one of its nodes
  std::map<std::string, std::vector<std::string>> order;
  while (!effects.assign.empty()) {
    const std::vector<Effects::Assignment> assigned = effects.assign;
    for (const Effects::Assignment& one : assigned) {
      order[one.worker].push_back(absl::StrCat(one.start.backend(), " ", FormatShape(one.start.shape())));
      Report(one.worker, one.start, v1::OUTCOME_MEASURED);
    }
    effects = Take();
  }
  const auto all = testing::ElementsAre("eager 1x64", "sdpa 1x64", "eager 2x64", "sdpa 2x64");
  EXPECT_THAT(order, testing::UnorderedElementsAre(testing::Pair("w1", all), testing::Pair("w2", all)));
  EXPECT_EQ(StateOf(1), v1::BENCHMARK_STATE_FINISHED);
  EXPECT_EQ(Whole(1).jobs(5).node().worker(), "w2");
}

TEST_F(SchedulerTest, PlacementEveryIsBoundedInTheRunsAndStepsOfAllNodesTogether) {
  Join(MakeHello("w1", 2));
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, 16);
  spec.set_placement(v1::PLACEMENT_EVERY);
  spec.mutable_training()->set_timed_steps(kMaxSteps);
  const uint64_t fits = Submit(spec);
  EXPECT_EQ(StateOf(fits), v1::BENCHMARK_STATE_RUNNING);
  EXPECT_EQ(scheduler_.Head(fits)->runs_total(), 32u);
  spec.set_repetitions(17);
  EXPECT_EQ(ValidateSpec(spec, {}), absl::OkStatus()) << "on one node it fits";
  const uint64_t steps = Submit(spec);
  EXPECT_EQ(StateOf(steps), v1::BENCHMARK_STATE_CANCELLED);
  EXPECT_EQ(scheduler_.Head(steps)->cancel_reason(),
            "placement every: 2 slots fit, which makes 34 runs of 1000000 timed steps; at most 32000000 steps are "
            "possible in one benchmark");
  spec = MakeSpec({"eager"}, 51, 1000);
  spec.set_placement(v1::PLACEMENT_EVERY);
  const uint64_t runs = Submit(spec);
  EXPECT_EQ(scheduler_.Head(runs)->cancel_reason(),
            "placement every: 2 slots fit, which makes 102000 runs; at most 100000 are possible in one benchmark");
  Take();
}

TEST_F(SchedulerTest, NodeOfAFleetComparisonWaitsForItsWorkerAndFailsWhenItsSlotIsGoneForGood) {
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, 2);
  spec.set_placement(v1::PLACEMENT_EVERY);
  Join(MakeHello("w1", 1));
  Submit(spec);
  const v1::StartRun start = TakeStart();
  Progress("w1", start);
  Join(MakeHello("w2", 1));
  now_ += kLease + 1;
  scheduler_.Tick(now_, effects_);
  EXPECT_TRUE(Take().assign.empty());
  EXPECT_THAT(Explain(1)[0].text(), testing::HasSubstr("its slot, w1 cpu0, is not connected"));
  EXPECT_EQ(Explain(1)[0].node().worker(), "w1");
  EXPECT_EQ(Explain(1)[0].node().slot(), "cpu0");
  Join(MakeHello("w1", 1));
  EXPECT_EQ(TakeStart().attempt(), 2u);
  v1::WorkerHello other = MakeHello("w1", 0);
  Join(other);
  EXPECT_EQ(StateOf(1), v1::BENCHMARK_STATE_FINISHED);
  EXPECT_THAT(Whole(1).jobs(0).runs(1).result().reason(), testing::HasSubstr("no longer offers cpu0"));
  Take();
}

TEST_F(SchedulerTest, NodeThatCameBackWithLessDuringARunDoesNotGetItAgain) {
  v1::BenchmarkSpec spec = MakeSpec({"flash2"}, 1, 2);
  spec.set_placement(v1::PLACEMENT_EVERY);
  Join(MakeHello("w", 1, {"eager", "flash2"}));
  Submit(spec);
  const v1::StartRun start = TakeStart();
  v1::WorkerHello less = MakeHello("w", 1, {"eager"});
  *less.add_active() = MakeActive(start);
  Join(less);
  Take();
  Report("w", start, v1::OUTCOME_CANCELLED);
  EXPECT_TRUE(Take().assign.empty());
  EXPECT_EQ(StateOf(1), v1::BENCHMARK_STATE_FINISHED);
  EXPECT_EQ(Whole(1).jobs(0).runs(0).result().outcome(), v1::OUTCOME_UNSUPPORTED);
}

TEST_F(SchedulerTest, NodeWhoseWorkerDrainsLeavesItsPlaceOfMaxSlotsToAnother) {
  SubmitForNodesInTurn(2, {"w1", "w2"});
  const v1::StartRun start = TakeStart();
  scheduler_.WorkerHeard("w1", true, now_, effects_);
  EXPECT_TRUE(Take().assign.empty()) << "what runs counts";
  Report("w1", start, v1::OUTCOME_MEASURED);
  const Effects effects = Take();
  ASSERT_EQ(effects.assign.size(), 1u);
  EXPECT_EQ(effects.assign[0].worker, "w2");
}

TEST_F(SchedulerTest, NodeWhoseWorkerIsAwayLeavesItsPlaceOfMaxSlotsToAnother) {
  SubmitForNodesInTurn(3, {"w1", "w2", "w3"});
  const auto why = [this](int node) { return Explain(1)[static_cast<size_t>(node)].waits(); };
  const std::string another_first = "1 other node goes first, as many as its max_slots allows at once";
  TakeStart();
  EXPECT_EQ(why(1), another_first);
  scheduler_.WorkerDisconnected("w1", now_);
  now_ += kLease;
  for (const char* worker : {"w2", "w3"}) scheduler_.WorkerHeard(worker, false, now_, effects_);
  EXPECT_TRUE(Take().assign.empty()) << "it may be back at any moment";
  ++now_;
  scheduler_.Tick(now_, effects_);
  Effects effects = Take();
  ASSERT_EQ(effects.assign.size(), 1u);
  EXPECT_EQ(effects.assign[0].worker, "w2");
  EXPECT_THAT(why(0), testing::StartsWith("its slot, w1 cpu0, is not connected"));
  EXPECT_EQ(why(2), another_first);

  scheduler_.SetDrained("w2", true, now_, effects_);
  EXPECT_TRUE(Take().assign.empty()) << "what runs counts";
  Join(MakeHello("w1", 1));
  EXPECT_TRUE(Take().assign.empty());
  EXPECT_EQ(why(0), another_first);
  Report("w2", effects.assign[0].start, v1::OUTCOME_MEASURED);
  effects = Take();
  ASSERT_EQ(effects.assign.size(), 1u);
  EXPECT_EQ(effects.assign[0].worker, "w1");
  EXPECT_THAT(why(1), testing::StartsWith("its slot, w2 cpu0, is drained"));
  EXPECT_EQ(why(2), another_first);

  // Both have begun, and one of them has the place.
  Scheduler restarted(kLease);
  restarted.RestoreDrained("w2");
  ASSERT_EQ(restarted.Restore(*scheduler_.Head(1), RowsOf(1), now_), absl::OkStatus());
  EXPECT_EQ(restarted.CheckInvariants(), absl::OkStatus());
  Effects after;
  restarted.WorkerJoined(MakeHello("w3", 1), now_, after);
  restarted.WorkerJoined(MakeHello("w2", 1), now_, after);
  EXPECT_TRUE(after.assign.empty()) << "w1's run may be claimed";
  now_ += kLease;
  for (const char* worker : {"w2", "w3"}) restarted.WorkerHeard(worker, false, now_, after);
  ++now_;
  restarted.Tick(now_, after);
  ASSERT_EQ(after.assign.size(), 1u);
  EXPECT_EQ(after.assign[0].worker, "w3");
  EXPECT_TRUE(restarted.SetDrained("w2", false, now_, after));
  EXPECT_EQ(after.assign.size(), 1u);
  EXPECT_EQ(restarted.CheckInvariants(), absl::OkStatus());
}

TEST_F(SchedulerTest, DrainedNodeThatHasNotComeSinceARestartHoldsNoPlace) {
  SubmitForNodesInTurn(2, {"w1", "w2"});
  const v1::StartRun start = TakeStart();
  scheduler_.WorkerDisconnected("w1", now_);
  Report("w1", start, v1::OUTCOME_MEASURED);
  EXPECT_TRUE(Take().assign.empty());
  Scheduler restarted(kLease);
  ASSERT_EQ(restarted.Restore(*scheduler_.Head(1), RowsOf(1), now_), absl::OkStatus());
  Effects effects;
  restarted.WorkerJoined(MakeHello("w2", 1), now_, effects);
  EXPECT_TRUE(effects.assign.empty()) << "w1 has begun";
  EXPECT_TRUE(restarted.SetDrained("w1", true, now_, effects));
  ASSERT_EQ(effects.assign.size(), 1u);
  EXPECT_EQ(effects.assign[0].worker, "w2");
  EXPECT_EQ(restarted.CheckInvariants(), absl::OkStatus());
  EXPECT_TRUE(restarted.SetDrained("w1", false, now_, effects));
  EXPECT_EQ(restarted.CheckInvariants(), absl::OkStatus());
}

TEST_F(SchedulerTest, RestoredFleetComparisonGoesOnWhereItWas) {
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 2, 1);
  spec.set_placement(v1::PLACEMENT_EVERY);
  spec.set_max_slots(1);
  Join(MakeHello("w1", 1));
  Join(MakeHello("w2", 1));
  Submit(spec);
  const v1::StartRun start = TakeStart();
  Scheduler restarted(kLease);
  ASSERT_EQ(restarted.Restore(*scheduler_.Head(1), RowsOf(1), now_), absl::OkStatus());
  ASSERT_EQ(restarted.CheckInvariants(), absl::OkStatus());
  Effects effects;
  restarted.WorkerJoined(MakeHello("w2", 1), now_, effects);
  EXPECT_TRUE(effects.assign.empty()) << "max_slots is held by w1";
  v1::WorkerHello hello = MakeHello("w1", 1);
  *hello.add_unacknowledged() = MakeReport(start, v1::OUTCOME_MEASURED);
  restarted.WorkerJoined(hello, now_, effects);
  ASSERT_EQ(effects.assign.size(), 1u);
  EXPECT_EQ(effects.assign[0].worker, "w1");
  EXPECT_EQ(restarted.CheckInvariants(), absl::OkStatus());
}

TEST_F(SchedulerTest, AfterARestartAFleetComparisonIsPlacedOnlyWhenWorkersHadTheTimeToComeBack) {
  v1::BenchmarkSpec every = MakeSpec({"eager"}, 1, 1);
  every.set_placement(v1::PLACEMENT_EVERY);
  Submit(every);
  Submit(MakeSpec({"eager"}, 1, 1));
  scheduler_.Cancel(2, "for the test", now_, effects_);
  for (const uint64_t held : {1u, 2u}) {  // one that waits for its nodes, or one that has ended
    Scheduler restarted(kLease);
    ASSERT_EQ(restarted.Restore(*scheduler_.Head(held), {}, now_), absl::OkStatus());
    Effects effects;
    const uint64_t id = held == 1 ? 1 : restarted.Submit(every, now_, effects);
    restarted.WorkerJoined(MakeHello("w1", 1), now_, effects);
    EXPECT_TRUE(effects.placed.empty());
    EXPECT_THAT(restarted.WhyItWaits(id).lanes[0].why,
                testing::HasSubstr("waits for the workers to come back after the restart"));
    EXPECT_FALSE(restarted.WhyItWaits(id).lanes[0].unfit);
    restarted.WorkerJoined(MakeHello("w2", 1), now_ + kLease, effects);
    EXPECT_TRUE(effects.placed.empty());
    restarted.WorkerHeard("w1", false, now_ + kLease + 1, effects);
    EXPECT_EQ(restarted.Head(id)->nodes_size(), 2);
    ASSERT_EQ(restarted.CheckInvariants(), absl::OkStatus());
  }
}

TEST_F(SchedulerTest, FleetComparisonInANewStoreIsPlacedAtOnce) {
  v1::BenchmarkSpec every = MakeSpec({"eager"}, 1, 1);
  every.set_placement(v1::PLACEMENT_EVERY);
  Join(MakeHello("w1", 1));
  EXPECT_THAT((Submit(every), Take().placed), testing::ElementsAre(1u));
}

TEST_F(SchedulerTest, CancelOfWhatWaitsTouchesNoRun) {
  Submit(MakeSpec({"eager"}, 3, 100));
  Take();
  EXPECT_TRUE(scheduler_.Cancel(1, "enough", now_, effects_));
  const Effects effects = Take();
  EXPECT_TRUE(effects.runs.empty());
  EXPECT_EQ(effects.cancelled_unassigned, 300u);
  EXPECT_EQ(Whole(1).jobs(2).runs(99).result().reason(), "enough");
  EXPECT_EQ(scheduler_.Head(1)->runs_ended(), 300u);
}

TEST_F(SchedulerTest, SlotThatIsGoneGivesItsRunToAnother) {
  Join(MakeHello("w", 2));
  Submit(MakeSpec({"eager"}, 2, 1));
  ASSERT_EQ(Take().assign.size(), 2u);
  Join(MakeHello("w", 1));
  const v1::StartRun start = TakeStart();
  EXPECT_EQ(start.slot(), "cpu0");
  EXPECT_EQ(scheduler_.counts().queued(), 1u);
}

// Backends that not every slot has

TEST_F(SchedulerTest, BackendThatNoSlotHasHoldsTheOthersOfItsShapeBackNoMore) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager", "flash2", "sdpa"}, 1, 2));
  std::vector<std::string> order;
  for (int i = 0; i < 4; ++i) {
    const v1::StartRun start = TakeStart();
    order.push_back(start.backend() + std::to_string(start.run().repetition()));
    if (i == 1) {
      EXPECT_EQ(Explain(1)[1].text(),
                "0 of 2 runs ended; waits: no slot offers flash2: w cpu0 has no backend flash2 on cpu");
      EXPECT_TRUE(Explain(1)[1].unfit());
      EXPECT_FALSE(Explain(1)[0].unfit());
    }
    Report("w", start, v1::OUTCOME_MEASURED);
  }
  EXPECT_THAT(order, testing::ElementsAre("eager0", "sdpa0", "eager1", "sdpa1"));
  EXPECT_TRUE(Take().assign.empty());
  EXPECT_EQ(StateOf(1), v1::BENCHMARK_STATE_RUNNING) << "flash2 waits for a slot that has it";
  EXPECT_EQ(Explain(1)[1].waits(), "no slot offers flash2: w cpu0 has no backend flash2 on cpu");
  Submit(MakeSpec({"eager"}, 1, 1));
  Report("w", TakeStart(), v1::OUTCOME_MEASURED);

  Join(MakeHello("gpu", 1, {"eager", "flash2"}));
  for (uint32_t repetition = 0; repetition < 2; ++repetition) {
    const v1::StartRun start = TakeStart();
    EXPECT_EQ(start.backend(), "flash2");
    EXPECT_EQ(start.run().repetition(), repetition);
    Report("gpu", start, v1::OUTCOME_MEASURED);
  }
  EXPECT_EQ(StateOf(1), v1::BENCHMARK_STATE_FINISHED);
}

TEST_F(SchedulerTest, BackendsThatASlotHasTogetherStayTogether) {
  Join(MakeHello("some", 1));
  Join(MakeHello("all", 1, {"eager", "sdpa", "flash2"}));
  Submit(MakeSpec({"eager", "flash2"}, 2, 1));
  const Effects effects = Take();
  ASSERT_EQ(effects.assign.size(), 1u) << "the other slot is idle, and lacks flash2";
  EXPECT_EQ(effects.assign[0].worker, "all");
  EXPECT_EQ(Explain(1)[2].waits(), "every slot that fits is busy (all cpu0 with benchmark 1); it is next");
  scheduler_.WorkerDisconnected("all", now_);
  EXPECT_TRUE(Take().assign.empty()) << "it may be back at any moment";
  EXPECT_EQ(Explain(1)[2].waits(),
            "no slot fits: some cpu0 has eager alone, and all cpu0 has more, which is not connected and may be back");
  EXPECT_FALSE(Explain(1)[2].unfit()) << "it starts in a lease at most";
  now_ += kLease + 1;
  scheduler_.WorkerHeard("some", false, now_, effects_);
  EXPECT_EQ(TakeStart().backend(), "eager") << "nobody has flash2 any longer";
}

TEST_F(SchedulerTest, NothingWaitsForADrainedSlotWhileAnotherHasAPartOfIt) {
  Join(MakeHello("some", 1));
  Join(MakeHello("all", 1, {"eager", "sdpa", "flash2"}));
  Submit(MakeSpec({"eager", "flash2"}, 2, 1));
  const Effects effects = Take();
  ASSERT_EQ(effects.assign.size(), 1u);
  EXPECT_EQ(effects.assign[0].worker, "all");
  EXPECT_TRUE(scheduler_.SetDrained("all", true, now_, effects_));
  const v1::StartRun second = TakeStart();
  EXPECT_EQ(second.backend(), "eager") << "of the second shape, on the slot that has nothing else";
  EXPECT_EQ(
      Explain(1)[3].waits(),
      "no slot offers flash2: all cpu0 is drained (attnfleet workers undrain all); some cpu0 has no backend flash2 "
      "on cpu");
  Report("some", second, v1::OUTCOME_MEASURED);
  Report("all", effects.assign[0].start, v1::OUTCOME_MEASURED);
  EXPECT_TRUE(Take().assign.empty()) << "flash2 is left, of both shapes";
  EXPECT_TRUE(scheduler_.SetDrained("all", false, now_, effects_));
  EXPECT_EQ(TakeStart().backend(), "flash2");
}

TEST_F(SchedulerTest, WorkerThatStopsIsWaitedForAsOneThatCrashed) {
  Join(MakeHello("some", 1));
  Join(MakeHello("all", 1, {"eager", "flash2"}));
  Submit(MakeSpec({"eager", "flash2"}, 2, 1));
  Take();
  scheduler_.WorkerHeard("all", /*draining=*/true, now_, effects_);
  EXPECT_TRUE(Take().assign.empty()) << "it may be restarted";
  now_ += kLease;
  scheduler_.WorkerHeard("all", true, now_, effects_);
  EXPECT_EQ(TakeStart().backend(), "eager") << "it lets its run end, which may take hours: what the other has begins";
  scheduler_.WorkerHeard("all", false, now_, effects_);
  EXPECT_EQ(Take().assign.size(), 0u) << "its run goes on";
}

TEST_F(SchedulerTest, NothingWaitsForAWorkerWithoutASlotInService) {
  Join(MakeHello("some", 1));
  v1::WorkerHello stuck = MakeHello("all", 1, {"eager", "flash2"});
  stuck.set_draining(true);
  Join(stuck);
  Submit(MakeSpec({"eager", "flash2"}, 1, 1));
  const v1::StartRun start = TakeStart();
  EXPECT_EQ(start.backend(), "eager");
  Report("some", start, v1::OUTCOME_MEASURED);
  stuck.set_draining(false);
  Join(stuck);
  EXPECT_EQ(TakeStart().backend(), "flash2");
}

TEST_F(SchedulerTest, CountAsksForSlotsThatHaveAnyOfTheBackends) {
  Join(MakeHello("a", 1, {"eager"}));
  Join(MakeHello("b", 1, {"eager"}));
  Join(MakeHello("c", 1, {"flash2"}));
  v1::BenchmarkSpec spec = MakeSpec({"eager", "flash2"}, 1, 1);
  spec.mutable_requirements()->set_count(2);
  Submit(spec);
  Report("a", TakeStart(), v1::OUTCOME_MEASURED);
  const v1::StartRun rest = TakeStart();
  EXPECT_EQ(rest.backend(), "flash2") << "on the one slot that has it";
  Report("c", rest, v1::OUTCOME_MEASURED);
  EXPECT_EQ(StateOf(1), v1::BENCHMARK_STATE_FINISHED);
  Take();
}

TEST_F(SchedulerTest, SlotThatHasMoreClosesNoBenchmarkThatCountsSlots) {
  Join(MakeHello("a", 1, {"eager"}));
  Join(MakeHello("b", 1, {"eager"}));
  v1::BenchmarkSpec spec = MakeSpec({"eager", "flash2"}, 4, 1);
  spec.mutable_requirements()->set_count(2);
  Submit(spec);
  EXPECT_EQ(Take().assign.size(), 2u);
  Join(MakeHello("more", 1, {"eager", "flash2"}));
  EXPECT_EQ(TakeStart().backend(), "eager") << "the third shape, on the new slot";
}

TEST_F(SchedulerTest, BackendsThatNoSlotHasTogetherGoToOneAfterTheOther) {
  Join(MakeHello("a", 1, {"eager", "sdpa"}));
  Join(MakeHello("b", 1, {"eager", "flash2"}));
  Submit(MakeSpec({"eager", "sdpa", "flash2"}, 1, 1));
  const Effects effects = Take();
  ASSERT_EQ(effects.assign.size(), 1u);
  ASSERT_EQ(effects.assign[0].worker, "a");
  EXPECT_EQ(Explain(1)[2].text(),
            "0 of 1 runs ended; waits: the rest of its group is on a cpu0, which lacks it; it follows on another slot");
  Report("a", effects.assign[0].start, v1::OUTCOME_MEASURED);
  const v1::StartRun sdpa = TakeStart();
  EXPECT_EQ(sdpa.backend(), "sdpa");
  Report("a", sdpa, v1::OUTCOME_MEASURED);
  const Effects last = Take();
  ASSERT_EQ(last.assign.size(), 1u);
  EXPECT_EQ(last.assign[0].worker, "b");
  EXPECT_EQ(last.assign[0].start.backend(), "flash2");
}

TEST_F(SchedulerTest, GroupInPartsGoesOnAfterARestart) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"flash2", "eager"}, 2, 1));
  const v1::StartRun first = TakeStart();
  EXPECT_EQ(first.backend(), "eager");
  Report("w", first, v1::OUTCOME_MEASURED);
  const v1::StartRun running = TakeStart();
  Scheduler restarted(kLease);
  ASSERT_EQ(restarted.Restore(*scheduler_.Head(1), RowsOf(1), now_), absl::OkStatus());
  ASSERT_EQ(restarted.CheckInvariants(), absl::OkStatus());
  Effects effects;
  v1::WorkerHello hello = MakeHello("w", 1);
  *hello.add_active() = MakeActive(running);
  restarted.WorkerJoined(hello, now_, effects);
  restarted.RunReported("w", MakeReport(running, v1::OUTCOME_MEASURED), now_, effects);
  EXPECT_TRUE(effects.assign.empty());
  ASSERT_EQ(restarted.CheckInvariants(), absl::OkStatus());
  restarted.WorkerJoined(MakeHello("gpu", 2, {"flash2"}), now_, effects);
  ASSERT_EQ(restarted.CheckInvariants(), absl::OkStatus());
  ASSERT_EQ(effects.assign.size(), 2u);
  for (const Effects::Assignment& one : effects.assign) EXPECT_EQ(one.start.backend(), "flash2");
}

TEST_F(SchedulerTest, AfterARestartAGroupIsPlacedInPartsOnlyWhenItsWorkerHadTheTimeToComeBack) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager", "flash2"}, 1, 1));
  for (const bool comes_back : {false, true}) {
    Scheduler restarted(kLease);
    ASSERT_EQ(restarted.Restore(*scheduler_.Head(1), {}, now_), absl::OkStatus());
    Effects effects;
    restarted.WorkerJoined(MakeHello("w", 1), now_, effects);
    EXPECT_TRUE(effects.assign.empty());
    EXPECT_THAT(restarted.WhyItWaits(1).lanes[0].why, testing::HasSubstr("workers that have more may be coming back"));
    if (comes_back) restarted.WorkerJoined(MakeHello("gpu", 1, {"eager", "flash2"}), now_ + kLease, effects);
    restarted.WorkerHeard("w", false, now_ + kLease + 1, effects);
    ASSERT_EQ(restarted.CheckInvariants(), absl::OkStatus());
    ASSERT_EQ(effects.assign.size(), 1u);
    EXPECT_EQ(effects.assign[0].worker, comes_back ? "gpu" : "w");
  }
}

TEST_F(SchedulerTest, GroupLeavesASlotThatHasItsBackendsNoLonger) {
  Join(MakeHello("w", 1, {"eager", "flash2"}));
  Submit(MakeSpec({"flash2", "eager"}, 1, 2));
  Report("w", TakeStart(), v1::OUTCOME_MEASURED);
  const v1::StartRun eager = TakeStart();
  EXPECT_EQ(eager.backend(), "eager");
  v1::WorkerHello hello = MakeHello("w", 1, {"eager"});  // with another trainer
  *hello.add_unacknowledged() = MakeReport(eager, v1::OUTCOME_MEASURED);
  Join(hello);
  EXPECT_EQ(TakeStart().backend(), "eager");
  Join(MakeHello("w", 1, {"sdpa"}));
  EXPECT_TRUE(Take().assign.empty());
  Join(MakeHello("other", 1, {"eager", "flash2"}));
  EXPECT_EQ(TakeStart().backend(), "flash2");
}

TEST_F(SchedulerTest, NodeOfAFleetComparisonIsUnsupportedWhereItLacksABackend) {
  Join(MakeHello("a", 1, {"eager", "sdpa"}));
  Join(MakeHello("b", 1, {"eager", "flash2"}));
  Join(MakeHello("c", 1, {"eager"}));
  v1::BenchmarkSpec spec = MakeSpec({"eager", "sdpa", "flash2"}, 1, 2);
  spec.set_placement(v1::PLACEMENT_EVERY);
  spec.set_max_slots(1);
  Submit(spec);
  v1::StartRun start = TakeStart();
  ASSERT_EQ(scheduler_.Head(1)->nodes_size(), 3) << "also c, which has less than either";
  EXPECT_EQ(Whole(1).jobs(2).runs(1).result().reason(), "a cpu0 has no backend flash2 on cpu");
  EXPECT_EQ(Whole(1).jobs(4).runs(0).result().outcome(), v1::OUTCOME_UNSUPPORTED);
  EXPECT_EQ(Whole(1).jobs(8).runs(1).result().reason(), "c cpu0 has no backend sdpa, flash2 on cpu");

  Scheduler restarted(kLease);
  ASSERT_EQ(restarted.Restore(*scheduler_.Head(1), RowsOf(1), now_), absl::OkStatus());
  EXPECT_EQ(restarted.CheckInvariants(), absl::OkStatus());
  for (int i = 0; i < 10; ++i) {
    Report(i < 4 ? "a" : i < 8 ? "b" : "c", start, v1::OUTCOME_MEASURED);
    if (i < 9) start = TakeStart();
  }
  EXPECT_EQ(StateOf(1), v1::BENCHMARK_STATE_FINISHED);
  Take();
}

class ClosedFleetTest : public SchedulerTest {
 protected:
  ClosedFleetTest() : SchedulerTest(true) {}
};

TEST_F(ClosedFleetTest, WhatItHasNoSlotForIsUnsupportedAtOnce) {
  Join(MakeHello("local", 1));
  Submit(MakeSpec({"fused", "flash2"}, 2, 2));
  const Effects effects = Take();
  EXPECT_TRUE(effects.assign.empty());
  EXPECT_EQ(effects.runs.size(), 8u);
  EXPECT_EQ(StateOf(1), v1::BENCHMARK_STATE_FINISHED);
  EXPECT_EQ(Whole(1).jobs(3).runs(1).result().outcome(), v1::OUTCOME_UNSUPPORTED);
  EXPECT_EQ(Whole(1).jobs(3).runs(1).result().reason(),
            "no slot offers flash2: local cpu0 has no backend flash2 on cpu");
}

TEST_F(ClosedFleetTest, TheOthersRun) {
  Join(MakeHello("local", 1));
  Submit(MakeSpec({"eager", "flash2"}, 2, 1));
  for (int i = 0; i < 2; ++i) {
    const v1::StartRun start = TakeStart();
    EXPECT_EQ(start.backend(), "eager");
    Report("local", start, v1::OUTCOME_MEASURED);
  }
  EXPECT_EQ(StateOf(1), v1::BENCHMARK_STATE_FINISHED);
}

TEST_F(ClosedFleetTest, NothingIsUnsupportedWhileItsWorkerHasNotCome) {
  Submit(MakeSpec({"eager", "flash2"}, 2, 1));
  EXPECT_TRUE(Take().runs.empty());
  Scheduler restarted(kLease, true);
  ASSERT_EQ(restarted.Restore(*scheduler_.Head(1), {}, now_), absl::OkStatus());
  Effects effects;
  restarted.WorkerJoined(MakeHello("local", 1), now_, effects);
  EXPECT_EQ(restarted.Head(1)->runs_ended(), 2u);
  ASSERT_EQ(effects.assign.size(), 1u);
  EXPECT_EQ(effects.assign[0].start.backend(), "eager");
  EXPECT_EQ(restarted.CheckInvariants(), absl::OkStatus());
}

TEST_F(ClosedFleetTest, WhatWaitsForAWorkerThatTakesNothingMoreHasFailed) {
  v1::WorkerHello drains = MakeHello("local", 1);
  Join(drains);
  Submit(MakeSpec({"eager"}, 2, 1));
  v1::BenchmarkSpec every = MakeSpec({"eager"}, 1, 2);
  every.set_placement(v1::PLACEMENT_EVERY);
  Submit(every);
  Report("local", TakeStart(), v1::OUTCOME_MEASURED);
  TakeStart();
  scheduler_.WorkerHeard("local", true, now_, effects_);
  EXPECT_EQ(Take().runs.size(), 0u) << "it was stopped, and whoever owns this fleet starts it again";
  drains.set_draining(true);  // no slot is in service, and the run is handed back
  Join(drains);
  Take();
  for (const uint64_t id : {1u, 2u}) {
    EXPECT_EQ(StateOf(id), v1::BENCHMARK_STATE_FINISHED) << id;
    EXPECT_EQ(Whole(id).jobs(0).runs(0).result().outcome(), id == 1 ? v1::OUTCOME_MEASURED : v1::OUTCOME_FAILED);
  }
  EXPECT_EQ(Whole(1).jobs(1).runs(0).result().reason(),
            "its worker takes no more runs: it stops, or a trainer of it cannot be killed");
}

TEST_F(ClosedFleetTest, FleetComparisonOfWhatNoNodeHasEndsToo) {
  Join(MakeHello("local", 2));
  v1::BenchmarkSpec spec = MakeSpec({"flash2", "fused"}, 3, 2);
  spec.set_placement(v1::PLACEMENT_EVERY);
  Submit(spec);
  EXPECT_EQ(Take().runs.size(), 12u);
  EXPECT_EQ(StateOf(1), v1::BENCHMARK_STATE_FINISHED);
}

// What explain says

TEST_F(ClosedFleetTest, FleetComparisonIsPlacedAtOnceAfterARestart) {
  v1::BenchmarkSpec every = MakeSpec({"eager"}, 1, 1);
  every.set_placement(v1::PLACEMENT_EVERY);
  Submit(every);
  Scheduler restarted(kLease, true);
  ASSERT_EQ(restarted.Restore(*scheduler_.Head(1), {}, now_), absl::OkStatus());
  Effects effects;
  restarted.WorkerJoined(MakeHello("w", 1), now_, effects);
  EXPECT_EQ(restarted.Head(1)->nodes_size(), 1);
}

TEST_F(SchedulerTest, ExplainKnowsThatAnAttemptsWorkerIsGone) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager"}, 1, 1));
  TakeStart();
  EXPECT_EQ(Explain(1)[0].text(), "0 of 1 runs ended; repetition 0 is on w cpu0, attempt 1");
  scheduler_.WorkerDisconnected("w", now_);
  EXPECT_EQ(
      Explain(1)[0].text(),
      "0 of 1 runs ended; repetition 0, attempt 1, was on w cpu0, which is not connected: unless it comes back in "
      "time, the attempt is lost");
}

TEST_F(SchedulerTest, ExplainSaysWhoseTurnComesFirst) {
  Join(MakeHello("w", 1));
  Submit(MakeSpec({"eager", "sdpa"}, 1, 1));
  Take();
  EXPECT_EQ(Explain(1)[1].text(),
            "0 of 1 runs ended; waits: its turn on w cpu0 comes after run 1/0/0 (the runs of one shape go to one "
            "slot, one after another)");
  v1::BenchmarkSpec spec = MakeSpec({"eager"}, 1, 1);
  spec.mutable_requirements()->set_device_name_contains("H100");
  EXPECT_EQ(Explain(Submit(spec))[0].waits(), "no slot fits: w cpu0 has the device Test CPU, needs \"H100\"");
}

// As a damaged store may have it.
TEST(Explanations, OfABenchmarkThatIsOverThoughItsRunsAreNot) {
  v1::Benchmark benchmark;
  *benchmark.mutable_spec() = MakeSpec({"eager"}, 2, 1);
  benchmark.set_state(v1::BENCHMARK_STATE_FINISHED);
  for (v1::Job& job : ExpandJobs(benchmark)) *benchmark.add_jobs() = std::move(job);
  benchmark.mutable_jobs(1)->mutable_runs(0)->set_state(v1::RUN_STATE_RUNNING);
  const std::vector<v1::Explanation> explanations = server::Explain(benchmark, {});
  ASSERT_EQ(explanations.size(), 2u);
  EXPECT_EQ(explanations[0].text().substr(0, 17), "0 of 1 runs ended");
}

}  // namespace
}  // namespace attnfleet::server
