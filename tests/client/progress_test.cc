#include "client/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/text.h"
#include "proto/spec.h"
#include "sample.h"

namespace attnfleet::client {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

v1::WatchResponse Whole(const v1::Benchmark& benchmark) {
  v1::WatchResponse update;
  *update.mutable_benchmark() = benchmark;
  return update;
}

v1::WatchResponse One(const v1::Run& run) {
  v1::WatchResponse update;
  *update.mutable_run() = run;
  return update;
}

TEST(ApplyUpdate, TheFirstMessageIsNoChange) {
  v1::Benchmark benchmark;
  EXPECT_THAT(ApplyUpdate(benchmark, Whole(FinishedBenchmark())), IsEmpty());
  EXPECT_EQ(benchmark.id(), 12U);
}

TEST(ApplyUpdate, CountsAnEndedRunOnce) {
  v1::Benchmark benchmark = QueuedBenchmark({"eager"}, 2);
  v1::Run run = benchmark.jobs(0).runs(1);
  run.set_state(v1::RUN_STATE_ENDED);
  EXPECT_THAT(ApplyUpdate(benchmark, One(run)), SizeIs(1));
  EXPECT_THAT(ApplyUpdate(benchmark, One(run)), IsEmpty());
  EXPECT_EQ(benchmark.runs_ended(), 1U);
}

TEST(ApplyUpdate, AfterAReconnectTellsWhatWasMissed) {
  v1::Benchmark benchmark = QueuedBenchmark({"eager", "sdpa", "flash2"}, 3);
  const std::vector<Change> changes = ApplyUpdate(benchmark, Whole(FinishedBenchmark()));
  ASSERT_THAT(changes, SizeIs(18));
  EXPECT_EQ(changes[0].runs_ended, 1U);
  EXPECT_EQ(changes[17].runs_ended, 18U);
  EXPECT_TRUE(HasEnded(benchmark));
}

TEST(ApplyUpdate, IgnoresARunThatDoesNotExist) {
  v1::Benchmark benchmark = QueuedBenchmark({"eager"}, 1);
  v1::Run run = benchmark.jobs(0).runs(0);
  run.mutable_key()->set_job_index(99);
  EXPECT_THAT(ApplyUpdate(benchmark, One(run)), IsEmpty());
}

TEST(ChangeLine, OutOfMemoryIsOneShortLine) {
  v1::Benchmark benchmark = FinishedBenchmark();
  v1::Run run = benchmark.jobs(3).runs(0);
  run.mutable_result()->set_reason(
      "CUDA out of memory. Tried to allocate 24.00 GiB. GPU 0 has a total capacity of ...");
  v1::OutOfMemory& oom = *run.mutable_result()->mutable_out_of_memory();
  oom.set_requested_bytes(24LL << 30);
  oom.set_free_bytes(3LL << 30);
  oom.set_total_bytes(80LL << 30);
  oom.set_phase("backward");
  EXPECT_EQ(ChangeLine(benchmark, {run, true, 18}, std::nullopt),
            "[18/18] eager 64x1024, repetition 1 of 3: OOM: asked for 25.8 GB with 3.2 of 85.9 GB free (backward)");
}

TEST(ChangeLine, NamesTheNodeWhereEachHasItsOwn) {
  v1::Benchmark benchmark = FinishedBenchmark();
  v1::Node& node = *benchmark.mutable_jobs(1)->mutable_node();
  node.set_worker("w1");
  node.set_slot("cpu0");
  EXPECT_EQ(ChangeLine(benchmark, {benchmark.jobs(1).runs(2), true, 3}, std::nullopt),
            "[3/18] sdpa 32x128 on w1 cpu0, repetition 3 of 3: 29.35 it/s");
}

TEST(ChangeLine, TellsResultsFailuresAndRetries) {
  const v1::Benchmark benchmark = FinishedBenchmark();
  EXPECT_EQ(ChangeLine(benchmark, {benchmark.jobs(1).runs(2), true, 3}, 80.0),
            "[3/18] sdpa 32x128, repetition 3 of 3: 29.35 it/s; about 1 min 20 s left");
  EXPECT_EQ(ChangeLine(benchmark, {benchmark.jobs(3).runs(0), true, 3}, std::nullopt),
            "[3/18] eager 64x1024, repetition 1 of 3: out of memory: asked for 25.8 GB, 3.1 GB free");
  v1::Run run = benchmark.jobs(0).runs(0);
  v1::AttemptFailure& failure = *run.add_failed_attempts();
  failure.set_attempt(1);
  failure.set_reason("signal 11\033[2J");
  EXPECT_EQ(ChangeLine(benchmark, {run, false, 3}, std::nullopt),
            "[3/18] eager 32x128, repetition 1 of 3: attempt 1 failed, it is tried again: signal 11?[2J");
}

TEST(ProgressLines, ShowRunsTimeAndWhatRunsNow) {
  v1::Benchmark benchmark = QueuedBenchmark({"eager"}, 1);
  benchmark.set_runs_ended(1);
  v1::Run& run = *benchmark.mutable_jobs(1)->mutable_runs(0);
  run.set_state(v1::RUN_STATE_RUNNING);
  run.set_worker("w1");
  run.set_slot("cpu0");
  run.set_attempt(2);
  run.mutable_progress()->set_phase(v1::TRAINER_PHASE_TIMED);
  run.mutable_progress()->set_steps_done(35);
  run.mutable_progress()->set_steps_total(100);
  EXPECT_THAT(ProgressLines(benchmark, 42, 63.0, "", 100),
              ElementsAre("benchmark 12 [##########..........] 1/2 runs, 42 s, about 1 min 3 s left",
                          "  eager 64x1024: timed step 35/100, attempt 2 (w1/cpu0)"));
  for (const std::string& line : ProgressLines(benchmark, 42, 63.0, "", 20)) EXPECT_LE(DisplayWidth(line), 20);
  v1::Node& node = *benchmark.mutable_jobs(1)->mutable_node();
  node.set_worker("w1");
  node.set_slot("cpu0");
  EXPECT_EQ(ProgressLines(benchmark, 42, 63.0, "", 100).back(),
            "  eager 64x1024 on w1 cpu0: timed step 35/100, attempt 2");
}

TEST(ProgressLines, OnANarrowTerminalTheBarGivesWayToTheTimeLeft) {
  v1::Benchmark benchmark = QueuedBenchmark({"eager"}, 10);
  benchmark.set_runs_ended(10);
  const auto first = [&benchmark](int width) { return ProgressLines(benchmark, 42, 63.0, "", width).front(); };
  EXPECT_EQ(first(80), "benchmark 12 [##########..........] 10/20 runs, 42 s, about 1 min 3 s left");
  EXPECT_EQ(first(59), "benchmark 12 [##...] 10/20 runs, 42 s, about 1 min 3 s left");
  EXPECT_EQ(first(57), "benchmark 12 10/20 runs, 42 s, about 1 min 3 s left");
}

TEST(ProgressLines, SayThatNothingRunsAndDoNotFloodTheScreen) {
  v1::Benchmark benchmark = QueuedBenchmark({"eager"}, 10);
  EXPECT_EQ(ProgressLines(benchmark, 1, std::nullopt, "", 0).back(), "  waiting for a slot");
  EXPECT_EQ(ProgressLines(benchmark, 1, std::nullopt, "waiting: no worker is connected", 0).back(),
            "  waiting: no worker is connected");
  for (v1::Run& run : *benchmark.mutable_jobs(0)->mutable_runs()) run.set_state(v1::RUN_STATE_ASSIGNED);
  EXPECT_THAT(ProgressLines(benchmark, 1, std::nullopt, "", 0), SizeIs(6));
  EXPECT_EQ(ProgressLines(benchmark, 1, std::nullopt, "", 0).back(), "  and 6 more");
  EXPECT_EQ(ProgressLines(benchmark, 1, std::nullopt, "nothing new starts: disk full", 0).back(),
            "  nothing new starts: disk full");
}

TEST(WaitText, SaysEachReasonOnceAndNotTooMany) {
  v1::ExplainResponse response;
  const auto add = [&response](const char* reason, bool unfit) {
    response.add_explanations()->set_waits(reason);
    response.mutable_explanations()->rbegin()->set_unfit(unfit);
  };
  EXPECT_EQ(WaitText(response), "");
  add("no slot fits", true);
  add("", false);
  add("no slot fits", true);
  EXPECT_EQ(WaitText(response), "nothing runs: no slot fits");
  add("every slot that fits is busy", false);
  add("a third", false);
  EXPECT_EQ(WaitText(response), "waiting: no slot fits; every slot that fits is busy; and 1 more reason");
  add("a fourth", true);
  EXPECT_EQ(WaitText(response), "waiting: no slot fits; every slot that fits is busy; and 2 more reasons");
}

TEST(WaitText, AStoreThatDoesNotWorkIsTheReasonBeforeAllOthers) {
  v1::ExplainResponse response;
  response.add_explanations()->set_waits("no slot fits");
  response.set_stalled("store /s: disk full");
  EXPECT_EQ(WaitText(response), "nothing new starts: store /s: disk full");
}

TEST(AnyRunActive, IsTrueOfOneThatIsAssigned) {
  v1::Benchmark benchmark = QueuedBenchmark({"eager"}, 2);
  EXPECT_FALSE(AnyRunActive(benchmark));
  benchmark.mutable_jobs(1)->mutable_runs(1)->set_state(v1::RUN_STATE_ASSIGNED);
  EXPECT_TRUE(AnyRunActive(benchmark));
}

TEST(Succeeded, OutOfMemoryAndUnsupportedAreNoFailures) {
  v1::Benchmark benchmark = FinishedBenchmark();
  EXPECT_TRUE(Succeeded(benchmark));
  EndWithout(*benchmark.mutable_jobs(0), v1::OUTCOME_FAILED, "x");
  EXPECT_FALSE(Succeeded(benchmark));
}

TEST(Succeeded, IsFalseOfOneThatWasCancelled) {
  v1::Benchmark benchmark = FinishedBenchmark();
  benchmark.set_state(v1::BENCHMARK_STATE_CANCELLED);
  EXPECT_FALSE(Succeeded(benchmark));
}

}  // namespace
}  // namespace attnfleet::client
