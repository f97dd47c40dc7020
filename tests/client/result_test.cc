#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/numerical_check.h"
#include "client/result_csv.h"
#include "client/result_table.h"
#include "client/result_view.h"
#include "client/text.h"
#include "sample.h"

namespace attnfleet::client {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

ResultView View(const v1::Benchmark& benchmark) {
  return MakeResultView({benchmark}, {"attnfleet results 12", ""}, absl::UTCTimeZone());
}

std::string Table(const v1::Benchmark& benchmark, int width) { return ResultTable(View(benchmark), width, false); }

int LongestLine(const std::string& text) {
  std::istringstream lines(text);
  int longest = 0;
  for (std::string line; std::getline(lines, line);) longest = std::max(longest, DisplayWidth(line));
  return longest;
}

constexpr char kWide[] =
    R"(              it/s ------------------------------------   vs eager -----------------   MFU ------------------   peak allocated, GB
Batch   Seq         eager         sdpa           flash2                 sdpa  flash2    eager    sdpa  flash2   eager   sdpa  flash2
   32   128   23.40 ±0.12  29.35 ±0.12  unsupported [1]   1.25x [1.23, 1.26]       -   41.2 %  41.2 %       -    5.13   4.41       -
   64  1024       OOM [2]   2.98 ±0.12  unsupported [1]                    -       -        -  41.2 %       -     OOM  26.91       -

[1] flash2 32x128, flash2 64x1024: unsupported: attention bias is not possible
[2] eager 64x1024: out of memory: asked for 25.8 GB, 3.1 GB free

Figures    it/s over 300 steps at most (fewer once its 95 % confidence interval is 0.5 % wide) after 10 warm-up steps or more, median of 3 repetitions ± sample standard deviation; ratios are paired by
           repetition, [95 % bootstrap interval: of so few about their range]; memory is peak allocated (by tensors), 1 GB = 1e9 bytes; MFU is model FLOPs x it/s / the device's dense peak
Where      NVIDIA H100 80GB HBM3 GPU-7a (worker w1 on node7), LibTorch 2.11.0, CUDA 13.0
Runs       2026-09-21 14:13:30 +00:00 to 2026-09-21 14:18:10 +00:00
Settings   base model, bf16-mixed, attention biases on, dropout 0.1 (attention 0.1), adamw 1e-05, 10 labels, random boxes, 16 data-loader threads, seed 1
Command    attnfleet run --backends=eager,sdpa,flash2 --shapes=32x128,64x1024 --boxes=random
Benchmark  12, finished 2026-09-21 14:18:20 +00:00; again: attnfleet results 12
)";
constexpr char kLong[] = R"(Shape    Backend             it/s  vs eager     MFU  peak allocated, GB
32x128   eager        23.40 ±0.12     1.00x  41.2 %                5.13
32x128   sdpa         29.35 ±0.12     1.25x  41.2 %                4.41
32x128   flash2   unsupported [1]         -       -                   -
64x1024  eager            OOM [2]         -       -                 OOM
64x1024  sdpa          2.98 ±0.12         -  41.2 %               26.91
64x1024  flash2   unsupported [1]         -       -                   -

[1] flash2 32x128, flash2 64x1024: unsupported: attention bias is not possible
[2] eager 64x1024: out of memory: asked for 25.8 GB, 3.1 GB free

Figures    it/s over 300 steps at most (fewer once its 95 % confidence interval
           is 0.5 % wide) after 10 warm-up steps or more, median of 3
           repetitions ± sample standard deviation; ratios are paired by
           repetition; memory is peak allocated (by tensors), 1 GB = 1e9 bytes;
           MFU is model FLOPs x it/s / the device's dense peak
Where      NVIDIA H100 80GB HBM3 GPU-7a (worker w1 on node7), LibTorch 2.11.0,
           CUDA 13.0
Runs       2026-09-21 14:13:30 +00:00 to 2026-09-21 14:18:10 +00:00
Settings   base model, bf16-mixed, attention biases on, dropout 0.1 (attention
           0.1), adamw 1e-05, 10 labels, random boxes, 16 data-loader threads,
           seed 1
Command    attnfleet run --backends=eager,sdpa,flash2 --shapes=32x128,64x1024
           --boxes=random
Benchmark  12, finished 2026-09-21 14:18:20 +00:00; again: attnfleet results 12
)";
constexpr char kNarrow[] = R"(Shape    Backend     it/s  ratio     GB
32x128   eager      23.40  1.00x   5.13
32x128   sdpa       29.35  1.25x   4.41
32x128   flash2     - [1]      -      -
64x1024  eager    OOM [2]      -    OOM
64x1024  sdpa        2.98      -  26.91
64x1024  flash2     - [1]      -      -

[1] flash2 32x128, flash2 64x1024:
    unsupported: attention bias is not
    possible
[2] eager 64x1024: out of memory: asked
    for 25.8 GB, 3.1 GB free

Figures: it/s over 300 steps at most
(fewer once its 95 % confidence interval
is 0.5 % wide) after 10 warm-up steps or
more, median of 3 repetitions; ratios
are paired by repetition; memory is peak
allocated (by tensors), 1 GB = 1e9
bytes; MFU is model FLOPs x it/s / the
device's dense peak
Where: NVIDIA H100 80GB HBM3 GPU-7a
(worker w1 on node7), LibTorch 2.11.0,
CUDA 13.0
Runs: 2026-09-21 14:13:30 +00:00 to
2026-09-21 14:18:10 +00:00
Settings: base model, bf16-mixed,
attention biases on, dropout 0.1
(attention 0.1), adamw 1e-05, 10 labels,
random boxes, 16 data-loader threads,
seed 1
Command: attnfleet run
--backends=eager,sdpa,flash2
--shapes=32x128,64x1024 --boxes=random
Benchmark: 12, finished 2026-09-21
14:18:20 +00:00; again: attnfleet
results 12
)";
constexpr char kMarkdown[] =
    R"(| Batch | Seq | eager it/s | sdpa it/s | flash2 it/s | sdpa vs eager | flash2 vs eager | eager MFU | sdpa MFU | flash2 MFU | eager GB (peak allocated) | sdpa GB (peak allocated) | flash2 GB (peak allocated) |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| 32 | 128 | 23.40 ±0.12 | 29.35 ±0.12 | unsupported [1] | 1.25x [1.23, 1.26] | - | 41.2 % | 41.2 % | - | 5.13 | 4.41 | - |
| 64 | 1024 | OOM [2] | 2.98 ±0.12 | unsupported [1] | - | - | - | 41.2 % | - | OOM | 26.91 | - |

- [1] flash2 32x128, flash2 64x1024: unsupported: attention bias is not possible
- [2] eager 64x1024: out of memory: asked for 25.8 GB, 3.1 GB free
- Figures: it/s over 300 steps at most (fewer once its 95 % confidence interval is 0.5 % wide) after 10 warm-up steps or more, median of 3 repetitions ± sample standard deviation; ratios are paired by repetition, [95 % bootstrap interval: of so few about their range]; memory is peak allocated (by tensors), 1 GB = 1e9 bytes; MFU is model FLOPs x it/s / the device's dense peak
- Where: NVIDIA H100 80GB HBM3 GPU-7a (worker w1 on node7), LibTorch 2.11.0, CUDA 13.0
- Runs: 2026-09-21 14:13:30 +00:00 to 2026-09-21 14:18:10 +00:00
- Settings: base model, bf16-mixed, attention biases on, dropout 0.1 (attention 0.1), adamw 1e-05, 10 labels, random boxes, 16 data-loader threads, seed 1
- Command: attnfleet run --backends=eager,sdpa,flash2 --shapes=32x128,64x1024 --boxes=random
- Benchmark: 12, finished 2026-09-21 14:18:20 +00:00; again: attnfleet results 12

| Shape | Backend | it/s mean [95 % interval] | MFU | step median, ms | p90, ms | p99, ms | peak allocated, GB (GiB) | peak reserved, GB (GiB) | device, sampled, GB (GiB) | peak resident, GB (GiB) | J per iteration |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| 32x128 | eager | 23.40 [23.17, 23.63] | 41.2 % | 42.74 | unknown | unknown | 5.13 (4.78) | 5.64 (5.26) | 6.16 (5.73) | unknown | unknown |
| 32x128 | sdpa | 29.35 [29.06, 29.64] | 41.2 % | 34.07 | unknown | unknown | 4.41 (4.11) | 4.85 (4.52) | 5.29 (4.93) | unknown | unknown |
| 64x1024 | sdpa | 2.98 [2.95, 3.01] | 41.2 % | 335.57 | unknown | unknown | 26.91 (25.06) | 29.60 (27.57) | 32.29 (30.07) | unknown | unknown |
)";

TEST(ResultTable, Width200HasARowForEachShape) { EXPECT_EQ(Table(FinishedBenchmark(), 200), kWide); }

TEST(ResultTable, Width80HasARowForEachCell) { EXPECT_EQ(Table(FinishedBenchmark(), 80), kLong); }

TEST(ResultTable, Width40LeavesTheSpreadOut) { EXPECT_EQ(Table(FinishedBenchmark(), 40), kNarrow); }

TEST(ResultTable, WithoutLimitIsWideAndUnwrapped) {
  const std::string text = Table(FinishedBenchmark(), 0);
  EXPECT_THAT(text, StartsWith(std::string(kWide).substr(0, std::string(kWide).find("\n\n"))));
  EXPECT_GT(LongestLine(text), 190);
}

TEST(ResultTable, FitsWheneverAWordAllows) {
  for (int width = 40; width <= 220; width += 5) {
    EXPECT_LE(LongestLine(Table(FinishedBenchmark(), width)), width) << width;
  }
}

TEST(ResultTable, HoldsNoControlCharacterOfOthers) {
  v1::Benchmark benchmark = FinishedBenchmark();
  benchmark.mutable_spec()->set_name("\033]0;title\007");
  EndWithout(*benchmark.mutable_jobs(0), v1::OUTCOME_FAILED, "\033[2Jgone\r\n");
  for (const std::string& text :
       {Table(benchmark, 200), ResultMarkdown({benchmark}, View(benchmark)), ResultCsv({benchmark})}) {
    for (const char c : text) EXPECT_TRUE(c == '\n' || static_cast<unsigned char>(c) >= 0x20) << text;
  }
}

TEST(ResultTable, ColorMarksTheFastestAndWhatIsMissing) {
  const std::string text = ResultTable(View(FinishedBenchmark()), 0, true);
  EXPECT_THAT(text, HasSubstr("\033[32m29.35 ±0.12\033[0m"));
  EXPECT_THAT(text, HasSubstr("\033[31mOOM [2]\033[0m"));
}

TEST(ResultView, OneBackendHasNoRatio) {
  v1::Benchmark benchmark = QueuedBenchmark({"sdpa"}, 1);
  Measure(*benchmark.mutable_jobs(0), 2, 0, 1'000'000'000);
  EXPECT_THAT(Table(benchmark, 0), Not(HasSubstr("vs eager")));
  EXPECT_THAT(Table(benchmark, 0), Not(HasSubstr("±")));
}

TEST(ResultView, WithoutAllocatedFigureMemoryIsTheResidentSet) {
  v1::Benchmark benchmark = QueuedBenchmark({"eager"}, 1);
  Measure(*benchmark.mutable_jobs(0), 2, 1, 0);
  benchmark.mutable_jobs(0)->mutable_summary()->set_peak_resident_bytes(412'000'000);
  EXPECT_THAT(Table(benchmark, 0), HasSubstr("peak resident, GB"));
  EXPECT_THAT(Table(benchmark, 0), HasSubstr("0.41"));
}

TEST(ResultView, ARunningBenchmarkSaysSo) {
  v1::Benchmark benchmark = QueuedBenchmark({"eager", "sdpa"}, 2);
  benchmark.set_state(v1::BENCHMARK_STATE_RUNNING);
  benchmark.mutable_jobs(0)->mutable_runs(0)->set_state(v1::RUN_STATE_RUNNING);
  const std::string text = Table(benchmark, 0);
  EXPECT_THAT(text, HasSubstr("running"));
  EXPECT_THAT(text, HasSubstr("waiting"));
  EXPECT_THAT(text, HasSubstr("0 of 8 runs ended"));
}

// Two of the three runs of the job, or all three, are contaminated.
void Contaminate(v1::Job& job, uint32_t runs, bool included) {
  v1::JobSummary& summary = *job.mutable_summary();
  summary.add_contamination("thermal throttling");
  summary.set_contaminated_runs(runs);
  summary.set_includes_contaminated(included);
}

TEST(ResultView, ContaminatedRunsAreTold) {
  v1::Benchmark benchmark = FinishedBenchmark();
  Contaminate(*benchmark.mutable_jobs(0), 2, false);
  Contaminate(*benchmark.mutable_jobs(1), 3, true);
  Contaminate(*benchmark.mutable_jobs(4), 2, true);
  const std::string text = Table(benchmark, 0);
  EXPECT_THAT(text, HasSubstr("[1] eager 32x128: 2 of 3 runs contaminated and left out: thermal throttling"));
  EXPECT_THAT(text, HasSubstr("[2] sdpa 32x128: ! every run is contaminated: thermal throttling"));
  EXPECT_THAT(text, HasSubstr("sdpa 64x1024: ! 2 of 3 runs contaminated and included: thermal throttling"));
  EXPECT_THAT(text, HasSubstr("23.40 [1]")) << "one run alone has no spread";
  EXPECT_THAT(text, HasSubstr("29.35! ±0.12 [2]"));
  EXPECT_THAT(text, HasSubstr("4.41!"));
  EXPECT_THAT(ResultTable(View(benchmark), 0, true), Not(HasSubstr("\033[32m29.35"))) << "not called the fastest";
}

// The second job's figures as on a machine that was busy with something else.
v1::Benchmark DisturbedBenchmark() {
  v1::Benchmark benchmark = FinishedBenchmark();
  v1::JobSummary& sdpa = *benchmark.mutable_jobs(1)->mutable_summary();
  sdpa.set_iterations_per_second_min(9.1);
  sdpa.set_iterations_per_second_max(31.25);
  sdpa.set_iterations_per_second_mean_low(9.1);
  sdpa.set_iterations_per_second_mean_high(31.25);
  sdpa.set_ratio_to_eager_low(0.4);
  sdpa.set_ratio_to_eager_high(1.3);
  return benchmark;
}

TEST(ResultView, RunsThatDisagreeHaveNoWinnerAndAFootnote) {
  const v1::Benchmark benchmark = DisturbedBenchmark();
  EXPECT_THAT(ResultTable(View(benchmark), 0, true), Not(HasSubstr("\033[32m")));
  EXPECT_THAT(Table(benchmark, 0),
              HasSubstr("[1] sdpa 32x128 (9.10 to 31.25 it/s): the runs disagree by more than 10 %"));
}

TEST(ResultView, WithoutRoomForTheIntervalADoubtfulRatioHasAMarkThatIsExplained) {
  const v1::Benchmark benchmark = DisturbedBenchmark();
  for (const int width : {80, 60}) {
    EXPECT_THAT(Table(benchmark, width), HasSubstr("1.25x?")) << width;
    EXPECT_THAT(absl::StrJoin(absl::StrSplit(Table(benchmark, width), absl::ByAnyChar(" \n"), absl::SkipEmpty()), " "),
                HasSubstr("? where their 95 % bootstrap interval holds 1"));
  }
  EXPECT_THAT(Table(benchmark, 0), HasSubstr("1.25x [0.40, 1.30]"));
  EXPECT_THAT(Table(benchmark, 0), Not(HasSubstr("? where")));
}

// Makes the job's ratio one of a single repetition.
void KeepOnePair(v1::Job& job) {
  job.mutable_summary()->set_ratio_pairs(1);
  job.mutable_summary()->clear_ratio_to_eager_low();
  job.mutable_summary()->clear_ratio_to_eager_high();
}

TEST(ResultView, ARatioOfOneRepetitionHasAMarkThatIsExplained) {
  const std::string explained = "; ratios are paired by repetition, ? where one repetition alone has no interval;";
  v1::Benchmark benchmark = QueuedBenchmark({"eager", "sdpa"}, 1);
  Measure(*benchmark.mutable_jobs(0), 23.4, 1, 5'130'000'000);
  Measure(*benchmark.mutable_jobs(1), 29.35, 1.254, 4'410'000'000);
  for (const int job : {0, 1}) KeepOnePair(*benchmark.mutable_jobs(job));
  EXPECT_THAT(Table(benchmark, 0), HasSubstr("  1.25x?  "));
  EXPECT_THAT(Table(benchmark, 0), HasSubstr(explained));
  EXPECT_THAT(ResultMarkdown({benchmark}, View(benchmark)), HasSubstr("| 1.25x? |"));
  EXPECT_THAT(Table(benchmark, 60), HasSubstr("  1.00x  ")) << "eager itself is no doubt";
}

TEST(ResultView, ARatioOfOneRepetitionIsToldFromThoseWithAnInterval) {
  v1::Benchmark benchmark = DisturbedBenchmark();
  Measure(*benchmark.mutable_jobs(3), 2, 1, 26'910'000'000);
  Measure(*benchmark.mutable_jobs(4), 3, 1.5, 26'910'000'000);
  KeepOnePair(*benchmark.mutable_jobs(4));
  const std::string wide = Table(benchmark, 0);
  EXPECT_THAT(wide, HasSubstr("1.25x [0.40, 1.30]"));
  EXPECT_THAT(wide, HasSubstr("1.50x?"));
  EXPECT_THAT(wide, HasSubstr(" range], ? where one repetition alone has no interval;"));
  const std::string narrow = Table(benchmark, 60);
  EXPECT_THAT(narrow, HasSubstr("1.25x?"));
  EXPECT_THAT(narrow, HasSubstr("1.50x?"));
  EXPECT_THAT(absl::StrJoin(absl::StrSplit(narrow, absl::ByAnyChar(" \n"), absl::SkipEmpty()), " "),
              HasSubstr("? where their 95 % bootstrap interval holds 1 or one repetition alone has no interval;"));
}

TEST(ResultView, TheWinnerIsToldApartByItsPairedRatioToo) {
  v1::Benchmark benchmark = FinishedBenchmark();
  v1::JobSummary& sdpa = *benchmark.mutable_jobs(1)->mutable_summary();
  sdpa.set_iterations_per_second_mean_low(23);  // both drifted, side by side
  EXPECT_TRUE(View(benchmark).rows[0].cells[1].fastest);
  sdpa.set_ratio_to_eager_low(0.99);
  EXPECT_FALSE(View(benchmark).rows[0].cells[1].fastest);
  EXPECT_THAT(View(benchmark).notes, testing::SizeIs(2)) << "as fast as eager is no disagreement";
}

TEST(ResultView, RunsOfARowOnSeveralSlotsAreToldInsteadOfBlamedOnNoise) {
  v1::Benchmark benchmark = DisturbedBenchmark();
  EXPECT_THAT(Table(benchmark, 0), HasSubstr("the runs disagree"));
  benchmark.mutable_jobs(1)->mutable_runs(2)->set_worker("w2");
  const std::string text = Table(benchmark, 0);
  EXPECT_THAT(text, HasSubstr("its runs are of several slots, over which the figures are: w1 GPU-0: repetitions 1, 2; "
                              "w2 GPU-0: repetition 3"));
  EXPECT_THAT(text, Not(HasSubstr("the runs disagree")));
}

TEST(ResultView, OneRepetitionHasNoWinner) {
  v1::Benchmark benchmark = FinishedBenchmark();
  EXPECT_TRUE(View(benchmark).rows[0].cells[1].fastest);
  benchmark.mutable_jobs(0)->mutable_summary()->set_measured_runs(1);
  EXPECT_FALSE(View(benchmark).rows[0].cells[1].fastest);
}

TEST(ResultView, NodesAreNamedAtEveryWidth) {
  v1::Benchmark benchmark = FinishedBenchmark();
  for (v1::Job& job : *benchmark.mutable_jobs()) {
    job.mutable_node()->set_worker("node7");
    job.mutable_node()->set_slot("gpu0");
  }
  v1::Node& node = *benchmark.mutable_fleet()->add_nodes()->mutable_node();
  node = benchmark.jobs(0).node();
  node.set_device_name("NVIDIA H100 80GB HBM3");
  for (const int width : {0, 100, 70, 50}) {
    const std::string table = Table(benchmark, width);
    EXPECT_THAT(table.substr(0, table.find("\n\n")), HasSubstr("node7 gpu0")) << width;
  }
  EXPECT_LE(LongestLine(Table(benchmark, 60)), 60);
  EXPECT_THAT(Table(benchmark, 0), HasSubstr("] eager 64x1024 on node7 gpu0: out of memory")) << "footnotes too";
  EXPECT_THAT(ResultMarkdown({benchmark}, View(benchmark)), HasSubstr("| 32x128 | sdpa | node7 gpu0 |"));
}

TEST(ResultView, NothingWinsAgainstWhatRanOnAnotherDevice) {
  for (const char* device : {"GPU-8b", "several"}) {
    v1::Benchmark benchmark = FinishedBenchmark();
    EXPECT_TRUE(View(benchmark).rows[0].cells[1].fastest);
    benchmark.mutable_jobs(1)->mutable_summary()->set_device_uuid(device);
    EXPECT_FALSE(View(benchmark).rows[0].cells[1].fastest);
    EXPECT_THAT(Table(benchmark, 0), HasSubstr("several")) << "the row says that it has no one device";
  }
  v1::Benchmark benchmark = FinishedBenchmark();
  for (v1::Job& job : *benchmark.mutable_jobs()) job.mutable_summary()->set_worker("several");
  EXPECT_FALSE(View(benchmark).rows[0].cells[1].fastest);
}

// The check of the second job's first run.
v1::NumericalCheck& CheckOf(v1::Benchmark& benchmark) {
  v1::NumericalCheck& check =
      *benchmark.mutable_jobs(1)->mutable_runs(0)->mutable_result()->mutable_measurement()->mutable_numerical_check();
  check.set_samples(32);
  check.set_output_error(0.01);
  check.set_loss_error(1e-5);
  check.set_gradient_error(0.01);
  check.set_gradient_worst("layer.1.key.weight");
  return check;
}

TEST(ResultView, WrongResultsHaveAFootnoteAndDoNotWin) {
  v1::Benchmark benchmark = FinishedBenchmark();
  v1::NumericalCheck& check = CheckOf(benchmark);
  EXPECT_TRUE(View(benchmark).rows[0].cells[1].fastest);
  EXPECT_THAT(View(benchmark).notes, testing::SizeIs(2));
  check.set_gradient_error(0.31);
  EXPECT_FALSE(View(benchmark).rows[0].cells[1].fastest);
  EXPECT_THAT(Table(benchmark, 0), HasSubstr("[1] sdpa 32x128: numerical check failed: gradient of layer.1.key.weight "
                                             "off by 0.31 (bf16-mixed: at most 0.1)\n"));
}

TEST(NumericalCheckFailure, IsBoundedByThePrecision) {
  v1::Benchmark benchmark = FinishedBenchmark();
  v1::NumericalCheck& check = CheckOf(benchmark);
  v1::Job& job = *benchmark.mutable_jobs(1);
  const auto failure = [&](const std::string& precision) {
    job.mutable_runs(0)->mutable_result()->mutable_environment()->set_precision(precision);
    return NumericalCheckFailure(job);
  };
  EXPECT_EQ(failure("bf16"), "");
  EXPECT_EQ(failure("tf32"), "");
  EXPECT_THAT(failure("fp32"), HasSubstr("off by 0.01 (fp32: at most 0.001)"));
  check.set_gradient_error(0.05);
  EXPECT_EQ(failure("bf16-mixed"), "");
  EXPECT_THAT(failure("tf32"), HasSubstr("(tf32: at most 0.02)"));
  check.set_gradient_error(std::nan(""));
  EXPECT_THAT(failure("bf16"), HasSubstr("gradient of layer.1.key.weight off by nan"));
  check.set_gradient_error(0.01);
  check.set_output_error(0.2);
  EXPECT_THAT(failure("bf16"), HasSubstr("output off by 0.2"));
  check.set_output_error(0.01);
  check.set_loss_error(std::nan(""));
  EXPECT_THAT(failure("bf16"), HasSubstr("loss off by nan"));
  check.set_skipped("failed: no kernel");
  EXPECT_EQ(failure("bf16"), "") << "no check is no failure";
}

TEST(ResultView, FiguresSayHowManyRepetitionsCount) {
  v1::Benchmark benchmark = FinishedBenchmark();
  benchmark.mutable_spec()->set_repetitions(30);
  EXPECT_THAT(Table(benchmark, 0), HasSubstr("median of 3 of 30 repetitions ±"));
  benchmark.mutable_jobs(1)->mutable_summary()->set_measured_runs(2);
  EXPECT_THAT(Table(benchmark, 0), HasSubstr("median of 2 to 3 of 30 repetitions ±"));
  for (v1::Job& job : *benchmark.mutable_jobs()) {
    if (job.summary().measured_runs() > 0) job.mutable_summary()->set_measured_runs(1);
  }
  EXPECT_THAT(Table(benchmark, 0), HasSubstr(", 1 of 30 repetitions;"));
}

TEST(ResultView, AReasonIsToldOnce) {
  v1::Benchmark benchmark = FinishedBenchmark();
  for (const int job : {0, 1}) Contaminate(*benchmark.mutable_jobs(job), 1, false);
  EXPECT_THAT(Table(benchmark, 0),
              HasSubstr("[1] eager 32x128, sdpa 32x128: 1 of 3 runs contaminated and left out: thermal throttling\n"));
}

TEST(ResultView, MissingRunsAreTold) {
  v1::Benchmark benchmark = FinishedBenchmark();
  benchmark.mutable_jobs(1)->mutable_summary()->set_measured_runs(2);
  v1::RunResult& lost = *benchmark.mutable_jobs(1)->mutable_runs(1)->mutable_result();
  lost.set_outcome(v1::OUTCOME_FAILED);
  lost.set_reason("signal 11");
  EXPECT_THAT(Table(benchmark, 0), HasSubstr("[1] sdpa 32x128: 1 of 3 runs without a figure: failed: signal 11"));
}

TEST(ResultView, DropoutOfDifferentThingsIsAFootnote) {
  v1::Benchmark benchmark = FinishedBenchmark();
  const auto drop = [&](int job, v1::DropoutPlacement placement) {
    for (v1::Run& run : *benchmark.mutable_jobs(job)->mutable_runs()) {
      run.mutable_result()->mutable_measurement()->set_attention_dropout_placement(placement);
    }
  };
  drop(0, v1::DROPOUT_PLACEMENT_PROBABILITIES);
  drop(1, v1::DROPOUT_PLACEMENT_PROBABILITIES);
  EXPECT_THAT(Table(benchmark, 0), Not(HasSubstr("sdpa*")));
  drop(1, v1::DROPOUT_PLACEMENT_OUTPUT);
  EXPECT_THAT(Table(benchmark, 0), HasSubstr("*   attention dropout drops different things: eager: the probabilities; "
                                             "sdpa: the output of attention"));
  EXPECT_THAT(ResultMarkdown({benchmark}, View(benchmark)), HasSubstr("| sdpa* it/s |"));
}

TEST(ResultView, AStepThatIsNotTheUsualOneIsTold) {
  v1::Benchmark benchmark = FinishedBenchmark();
  const auto ran = [&](const std::string& step) {
    for (v1::Job& job : *benchmark.mutable_jobs()) {
      for (v1::Run& run : *job.mutable_runs()) run.mutable_result()->mutable_environment()->set_step(step);
    }
    return Table(benchmark, 0);
  };
  EXPECT_THAT(ran("reference"), Not(HasSubstr(" step,")));
  benchmark.mutable_spec()->mutable_training()->set_step(v1::TRAINING_STEP_FUSED_BF16_STREAM);
  EXPECT_THAT(ran("fused-bf16-stream"), HasSubstr(", fused-bf16-stream step, "));
  // An older trainer does not know the flag's value, or says nothing of steps.
  EXPECT_THAT(ran("fused"), HasSubstr(", fused step (the trainer has no fused-bf16-stream one), "));
  EXPECT_THAT(ran(""), HasSubstr(", reference step (the trainer has no fused-bf16-stream one), "));
}

TEST(ResultView, WithoutAPeakUtilizationIsUnknown) {
  v1::Benchmark benchmark = FinishedBenchmark();
  for (v1::Job& job : *benchmark.mutable_jobs()) job.mutable_summary()->clear_model_flops_utilization();
  EXPECT_THAT(Table(benchmark, 0), HasSubstr("MFU unknown"));
  EXPECT_THAT(ResultMarkdown({benchmark}, View(benchmark)), HasSubstr("| unknown |"));
}

TEST(ResultView, SeveralBenchmarksMakeOneTableThatNamesDeviceAndTime) {
  v1::Benchmark second = FinishedBenchmark();
  second.mutable_spec()->mutable_training()->set_timed_steps(40);
  second.mutable_spec()->mutable_shapes(0)->set_batch(128);
  for (v1::Job& job : *second.mutable_jobs()) {
    if (job.group() == 0) job.mutable_shape()->set_batch(128);
    job.mutable_summary()->set_device_uuid("GPU-b0");
  }
  const ResultView view = MakeResultView({FinishedBenchmark(), second}, {"again", ""}, absl::UTCTimeZone());
  ASSERT_EQ(view.rows.size(), 4U);
  EXPECT_EQ(view.rows[0].device, "GPU-7a");
  EXPECT_EQ(view.rows[2].device, "GPU-b0");
  EXPECT_EQ(view.rows[2].shape.batch(), 128);
  const std::string text = ResultTable(view, 0, false);
  EXPECT_THAT(text, HasSubstr("GPU-b0  2026-09-21 14:13:30 +00:00"));
  EXPECT_THAT(text, HasSubstr("128x128, 64x1024: attnfleet run"));
}

TEST(ResultView, SlowFiguresKeepTheirDigits) {
  v1::Benchmark benchmark = QueuedBenchmark({"eager"}, 1);
  Measure(*benchmark.mutable_jobs(0), 0.01234, 1, 1);
  EXPECT_EQ(View(benchmark).rows[0].cells[0].speed, "0.0123");
}

TEST(ResultMarkdown, IsAGitHubTable) {
  EXPECT_EQ(ResultMarkdown({FinishedBenchmark()}, View(FinishedBenchmark())), kMarkdown);
}

// The fields of one line by the names in the first; none of them holds a comma.
std::map<std::string, std::string> CsvFields(const std::string& text, int line) {
  std::istringstream lines(text);
  std::string names;
  std::string values;
  std::getline(lines, names);
  for (int i = 0; i < line; ++i) std::getline(lines, values);
  const std::vector<std::string> keys = absl::StrSplit(names, ',');
  const std::vector<std::string> fields = absl::StrSplit(values, ',');
  EXPECT_EQ(keys.size(), fields.size());
  std::map<std::string, std::string> result;
  for (size_t i = 0; i < std::min(keys.size(), fields.size()); ++i) result[keys[i]] = fields[i];
  return result;
}

TEST(ResultCsv, HasOneLineForEachCellAndEmptyFieldsForNoFigure) {
  v1::Benchmark benchmark = FinishedBenchmark();
  Contaminate(*benchmark.mutable_jobs(1), 2, true);
  const std::string text = ResultCsv({benchmark});
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 7);
  auto eager = CsvFields(text, 1);
  EXPECT_EQ(eager["iterations_per_second_median"], "23.4");
  EXPECT_EQ(eager["ratio_to_eager"], "1");
  EXPECT_EQ(eager["peak_allocated_bytes"], "5130000000");
  EXPECT_EQ(eager["energy_joules_per_iteration"], "") << "unknown is not 0";
  EXPECT_EQ(eager["device_uuid"], "GPU-7a");
  EXPECT_EQ(eager["precision"], "bf16-mixed");
  EXPECT_EQ(eager["contamination"], "");
  auto sdpa = CsvFields(text, 2);
  EXPECT_EQ(sdpa["ratio_to_eager_low"], "1.234");
  EXPECT_EQ(sdpa["ratio_to_eager_high"], "1.264");
  EXPECT_EQ(sdpa["model_flops_utilization"], "0.412");
  EXPECT_EQ(sdpa["contaminated_runs"], "2");
  EXPECT_EQ(sdpa["includes_contaminated"], "true");
  EXPECT_EQ(sdpa["contamination"], "thermal throttling");
  auto flash2 = CsvFields(text, 3);
  EXPECT_EQ(flash2["outcome"], "unsupported");
  EXPECT_EQ(flash2["reason"], "attention bias is not possible");
  for (const char* name : {"iterations_per_second_median", "ratio_to_eager", "peak_allocated_bytes", "worker"}) {
    EXPECT_EQ(flash2[name], "") << name;
  }
  EXPECT_THAT(text, HasSubstr("out of memory,\"asked for 25.8 GB, 3.1 GB free\",0,3,,"));
}

}  // namespace
}  // namespace attnfleet::client
