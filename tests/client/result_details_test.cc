#include "client/result_details.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "sample.h"

namespace attnfleet::client {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

std::string Details(const v1::Benchmark& benchmark) { return ResultDetails({benchmark}, "", 0, absl::UTCTimeZone()); }

// One measured cell.
v1::Benchmark OneCell() {
  v1::Benchmark benchmark = QueuedBenchmark({"sdpa"}, 2);
  benchmark.mutable_jobs()->DeleteSubrange(1, benchmark.jobs_size() - 1);
  Measure(*benchmark.mutable_jobs(0), 10, 0, 5'000'000'000);
  return benchmark;
}

TEST(ResultDetails, WhatIsNotKnownSaysSo) {
  const std::string text = Details(OneCell());
  for (const char* label : {"attention kernels", "numerical check", "energy", "SM clock", "temperature", "power",
                            "throttling", "ECC", "other processes", "contamination"}) {
    EXPECT_THAT(text, ContainsRegex(std::string(label) + " +unknown")) << label;
  }
  EXPECT_THAT(text, Not(HasSubstr("none")));
}

TEST(ResultDetails, ProofStandsBesideTheFigures) {
  v1::Benchmark benchmark = OneCell();
  v1::RunResult& result = *benchmark.mutable_jobs(0)->mutable_runs(0)->mutable_result();
  v1::Measurement& measurement = *result.mutable_measurement();
  measurement.add_attention_kernels("fmha_cutlassF");
  measurement.mutable_numerical_check()->set_samples(4);
  measurement.mutable_numerical_check()->set_gradient_worst("encoder.x");
  v1::GpuTelemetry& gpu = *result.mutable_telemetry();
  gpu.set_samples(5);
  gpu.set_sm_clock_mhz_median(1980);
  gpu.add_unknown("other processes");
  benchmark.mutable_jobs(0)->mutable_runs()->RemoveLast();
  const std::string text = Details(benchmark);
  EXPECT_THAT(text, HasSubstr("fmha_cutlassF"));
  EXPECT_THAT(text, ContainsRegex("4 samples: .*\\(encoder.x\\)"));
  EXPECT_THAT(text, HasSubstr("median 1980 MHz"));
  EXPECT_THAT(text, ContainsRegex("throttling +none seen"));
  EXPECT_THAT(text, ContainsRegex("other processes +unknown"));
  EXPECT_THAT(text, ContainsRegex("contamination +none found; unknown: other processes"));
  EXPECT_THAT(text, HasSubstr("5.00 GB (4.66 GiB)"));
}

TEST(ResultDetails, EachCellNamesItsStep) {
  v1::Benchmark benchmark = OneCell();
  EXPECT_THAT(Details(benchmark), ContainsRegex("\n  step +reference\n"));
  for (v1::Run& run : *benchmark.mutable_jobs(0)->mutable_runs()) {
    run.mutable_result()->mutable_environment()->set_step("fused");
  }
  EXPECT_THAT(Details(benchmark), ContainsRegex("\n  step +fused\n"));
}

TEST(ResultDetails, FailedAttemptsAreToldWithTheEndOfTheLog) {
  v1::Benchmark benchmark = QueuedBenchmark({"sdpa"}, 1);
  v1::Run& run = *benchmark.mutable_jobs(0)->mutable_runs(0);
  v1::AttemptFailure& first = *run.add_failed_attempts();
  first.set_attempt(1);
  first.set_worker("a");
  first.set_slot("cpu0");
  first.set_reason("worker a is lost");
  run.set_attempt(2);
  run.set_worker("b");
  run.set_slot("cpu1");
  run.set_state(v1::RUN_STATE_ENDED);
  run.mutable_result()->set_outcome(v1::OUTCOME_FAILED);
  run.mutable_result()->set_reason("trainer killed by signal 11");
  run.mutable_result()->mutable_failure()->set_log_tail("one\ntwo\n\nthree\n");
  EXPECT_THAT(Details(benchmark),
              HasSubstr("  failed attempt      repetition 0, attempt 1 on a cpu0: worker a is lost\n"
                        "  failed attempt      repetition 0, attempt 2 on b cpu1: trainer killed by "
                        "signal 11\n"
                        "    end of its log    one\n"
                        "                      two\n"
                        "                      three\n"));
}

TEST(ResultDetails, RunsThatDifferAreAllTold) {
  v1::Benchmark benchmark = OneCell();
  benchmark.mutable_jobs(0)->mutable_runs(1)->mutable_result()->mutable_environment()->set_device_uuid("GPU-other");
  EXPECT_THAT(Details(benchmark), HasSubstr("GPU-7a | GPU-other"));
}

TEST(ResultDetails, ACellWithoutAFigureIsItsReason) {
  EXPECT_THAT(Details(FinishedBenchmark()), HasSubstr("flash2 32x128: unsupported: attention bias is not possible\n"));
}

}  // namespace
}  // namespace attnfleet::client
