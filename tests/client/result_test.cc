#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

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
  return MakeResultView(benchmark, "attnfleet results 12", absl::UTCTimeZone());
}

std::string Table(const v1::Benchmark& benchmark, int width) { return ResultTable(View(benchmark), width, false); }

int LongestLine(const std::string& text) {
  std::istringstream lines(text);
  int longest = 0;
  for (std::string line; std::getline(lines, line);) longest = std::max(longest, DisplayWidth(line));
  return longest;
}

constexpr char kWide[] = R"(              it/s ------------------------------------   vs eager ----   peak allocated, GB
Batch   Seq         eager         sdpa           flash2    sdpa  flash2   eager   sdpa  flash2
   32   128   23.40 ±0.12  29.35 ±0.12  unsupported [1]   1.25x       -    5.13   4.41       -
   64  1024       OOM [2]   2.98 ±0.12  unsupported [1]       -       -     OOM  26.91       -

[1] flash2 32x128, flash2 64x1024: unsupported: attention bias is not possible
[2] eager 64x1024: out of memory: asked for 25.8 GB, 3.1 GB free

Figures    it/s over 100 steps after 10 warm-up steps, median of 3 repetitions ± sample standard deviation; ratios are paired by repetition; memory is peak allocated (by tensors), 1 GB = 1e9 bytes
Where      NVIDIA H100 80GB HBM3 (worker w1 on node7), LibTorch 2.11.0, CUDA 13.0
Settings   preset stock, base model, bf16-mixed, attention biases on, dropout 0.1 (attention 0.1), adamw 1e-05, 10 labels, random boxes, 16 data-loader threads, seed 1
Benchmark  12, finished 2026-09-21 14:18:20 +00:00; again: attnfleet results 12
)";
constexpr char kLong[] = R"(Shape    Backend             it/s  vs eager  peak allocated, GB
32x128   eager        23.40 ±0.12     1.00x                5.13
32x128   sdpa         29.35 ±0.12     1.25x                4.41
32x128   flash2   unsupported [1]         -                   -
64x1024  eager            OOM [2]         -                 OOM
64x1024  sdpa          2.98 ±0.12         -               26.91
64x1024  flash2   unsupported [1]         -                   -

[1] flash2 32x128, flash2 64x1024: unsupported: attention bias is not possible
[2] eager 64x1024: out of memory: asked for 25.8 GB, 3.1 GB free

Figures    it/s over 100 steps after 10 warm-up steps, median of 3 repetitions ±
           sample standard deviation; ratios are paired by repetition; memory is
           peak allocated (by tensors), 1 GB = 1e9 bytes
Where      NVIDIA H100 80GB HBM3 (worker w1 on node7), LibTorch 2.11.0, CUDA
           13.0
Settings   preset stock, base model, bf16-mixed, attention biases on, dropout
           0.1 (attention 0.1), adamw 1e-05, 10 labels, random boxes, 16
           data-loader threads, seed 1
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

Figures: it/s over 100 steps after 10
warm-up steps, median of 3 repetitions ±
sample standard deviation; ratios are
paired by repetition; memory is peak
allocated (by tensors), 1 GB = 1e9 bytes
Where: NVIDIA H100 80GB HBM3 (worker w1
on node7), LibTorch 2.11.0, CUDA 13.0
Settings: preset stock, base model,
bf16-mixed, attention biases on, dropout
0.1 (attention 0.1), adamw 1e-05, 10
labels, random boxes, 16 data-loader
threads, seed 1
Benchmark: 12, finished 2026-09-21
14:18:20 +00:00; again: attnfleet
results 12
)";
constexpr char kMarkdown[] =
    R"(| Batch | Seq | eager it/s | sdpa it/s | flash2 it/s | sdpa vs eager | flash2 vs eager | eager GB (peak allocated) | sdpa GB (peak allocated) | flash2 GB (peak allocated) |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| 32 | 128 | 23.40 ±0.12 | 29.35 ±0.12 | unsupported [1] | 1.25x | - | 5.13 | 4.41 | - |
| 64 | 1024 | OOM [2] | 2.98 ±0.12 | unsupported [1] | - | - | OOM | 26.91 | - |

- [1] flash2 32x128, flash2 64x1024: unsupported: attention bias is not possible
- [2] eager 64x1024: out of memory: asked for 25.8 GB, 3.1 GB free
- Figures: it/s over 100 steps after 10 warm-up steps, median of 3 repetitions ± sample standard deviation; ratios are paired by repetition; memory is peak allocated (by tensors), 1 GB = 1e9 bytes
- Where: NVIDIA H100 80GB HBM3 (worker w1 on node7), LibTorch 2.11.0, CUDA 13.0
- Settings: preset stock, base model, bf16-mixed, attention biases on, dropout 0.1 (attention 0.1), adamw 1e-05, 10 labels, random boxes, 16 data-loader threads, seed 1
- Benchmark: 12, finished 2026-09-21 14:18:20 +00:00; again: attnfleet results 12
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
  for (const std::string& text : {Table(benchmark, 200), ResultMarkdown(View(benchmark)), ResultCsv(benchmark)}) {
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

TEST(ResultView, DoubtfulFiguresAreMarked) {
  v1::Benchmark benchmark = FinishedBenchmark();
  benchmark.mutable_jobs(0)->mutable_summary()->add_contamination("thermal throttling");
  benchmark.mutable_jobs(1)->mutable_summary()->set_measured_runs(2);
  v1::RunResult& lost = *benchmark.mutable_jobs(1)->mutable_runs(1)->mutable_result();
  lost.set_outcome(v1::OUTCOME_FAILED);
  lost.set_reason("signal 11");
  const std::string text = Table(benchmark, 0);
  EXPECT_THAT(text, HasSubstr("[1] eager 32x128: suspect figure: thermal throttling"));
  EXPECT_THAT(text, HasSubstr("[2] sdpa 32x128: 1 of 3 runs without a figure: failed: signal 11"));
}

TEST(ResultView, SlowFiguresKeepTheirDigits) {
  v1::Benchmark benchmark = QueuedBenchmark({"eager"}, 1);
  Measure(*benchmark.mutable_jobs(0), 0.01234, 1, 1);
  EXPECT_EQ(View(benchmark).cells[0][0].speed, "0.0123");
}

TEST(ResultMarkdown, IsAGitHubTable) { EXPECT_EQ(ResultMarkdown(View(FinishedBenchmark())), kMarkdown); }

TEST(ResultCsv, HasOneLineForEachCellAndEmptyFieldsForNoFigure) {
  const std::string text = ResultCsv(FinishedBenchmark());
  std::istringstream lines(text);
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(line,
            "benchmark_id,benchmark_name,job_index,backend,batch,sequence_length,outcome,reason,measured_runs,"
            "ended_runs,iterations_per_second_median,iterations_per_second_min,iterations_per_second_max,"
            "iterations_per_second_mean,iterations_per_second_stddev,ratio_to_eager,ratio_to_eager_min,"
            "ratio_to_eager_max,peak_allocated_bytes,peak_reserved_bytes,peak_device_bytes,peak_resident_bytes,"
            "step_seconds_median,step_seconds_p90,step_seconds_p99,worker,device_name,contamination");
  std::getline(lines, line);
  EXPECT_EQ(line,
            "12,,0,eager,32,128,measured,,3,3,23.4,0,0,0,0.125,1,0,0,5130000000,,,,0,0,0,w1,NVIDIA H100 80GB HBM3,");
  std::getline(lines, line);
  std::getline(lines, line);
  EXPECT_EQ(line, "12,,2,flash2,32,128,unsupported,attention bias is not possible,0,3,,,,,,,,,,,,,,,,,,");
  std::getline(lines, line);
  EXPECT_THAT(line, HasSubstr("out of memory,\"asked for 25.8 GB, 3.1 GB free\",0,3,,"));
}

}  // namespace
}  // namespace attnfleet::client
