#include "server/answer_size.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "proto/spec.h"

namespace attnfleet::server {
namespace {

constexpr size_t kMiB = 1 << 20;
constexpr char kLeftOut[] = "(left out: this answer would be larger than 1 MiB; the server's store has it)";

// As many jobs of as many repetitions, each run of which has failed.
v1::Benchmark MakeFailed(int jobs, int repetitions, size_t log_bytes) {
  v1::Benchmark benchmark;
  benchmark.set_id(7);
  for (int job = 0; job < jobs; ++job) {
    v1::Job& one = *benchmark.add_jobs();
    for (int repetition = 0; repetition < repetitions; ++repetition) {
      v1::RunResult& result = *one.add_runs()->mutable_result();
      result.set_outcome(v1::OUTCOME_FAILED);
      result.mutable_failure()->set_log_tail(std::string(log_bytes, 'x'));
    }
  }
  return benchmark;
}

TEST(AnswerSize, WhatFitsStaysAsItIs) {
  v1::Benchmark benchmark = MakeFailed(2, 100, 4 << 10);
  const std::string before = benchmark.SerializeAsString();
  FitInto(kMiB, benchmark);
  EXPECT_EQ(benchmark.SerializeAsString(), before);
  const auto wire = SerializeWithin(kMiB, 7, benchmark);
  ASSERT_EQ(wire.status(), absl::OkStatus());
  EXPECT_EQ(**wire, before);
}

TEST(AnswerSize, LogsOfTheLastRepetitionsAreLeftOutUntilItFits) {
  v1::Benchmark benchmark = MakeFailed(2, 100, 8 << 10);
  FitInto(kMiB, benchmark);
  EXPECT_TRUE(SerializeWithin(kMiB, 7, benchmark).ok());
  EXPECT_GT(benchmark.ByteSizeLong(), kMiB - 2 * (8 << 10)) << "no more than that";
  for (const v1::Job& job : benchmark.jobs()) {
    EXPECT_EQ(job.runs(0).result().failure().log_tail(), std::string(8 << 10, 'x'));
    EXPECT_EQ(job.runs(99).result().failure().log_tail(), kLeftOut);
  }
}

TEST(AnswerSize, OtherTextsAreLeftOutWhenThatIsNotEnough) {
  v1::Benchmark benchmark = MakeFailed(1, 40, 8 << 10);
  for (v1::Run& run : *benchmark.mutable_jobs(0)->mutable_runs()) {
    for (int i = 0; i < 64; ++i)
      run.mutable_result()->mutable_measurement()->add_attention_kernels(std::string(512, 'k'));
    for (int i = 0; i < 10; ++i) run.add_failed_attempts()->set_reason(std::string(i == 0 ? 10 : 8 << 10, 'r'));
  }
  FitInto(kMiB, benchmark);
  EXPECT_TRUE(SerializeWithin(kMiB, 7, benchmark).ok());
  const v1::Run& first = benchmark.jobs(0).runs(0);
  const v1::Run& last = benchmark.jobs(0).runs(39);
  EXPECT_EQ(first.result().failure().log_tail(), kLeftOut);
  EXPECT_THAT(first.result().measurement().attention_kernels(), testing::IsEmpty());
  EXPECT_EQ(first.result().measurement().attention_kernels_unknown(), kLeftOut);
  EXPECT_EQ(first.failed_attempts(9).reason(), std::string(8 << 10, 'r'));
  EXPECT_EQ(last.failed_attempts(9).reason(), kLeftOut);
  EXPECT_EQ(last.failed_attempts(0).reason(), std::string(10, 'r')) << "shorter than what would stand there";
}

TEST(AnswerSize, WhatIsStillTooLargeIsAnErrorThatSaysSo) {
  v1::Benchmark benchmark = MakeFailed(1, 1, 0);
  v1::Measurement& measurement = *benchmark.mutable_jobs(0)->mutable_runs(0)->mutable_result()->mutable_measurement();
  for (int i = 0; i < 200'000; ++i) measurement.add_step_seconds(0.1);
  FitInto(kMiB, benchmark);
  EXPECT_EQ(measurement.step_seconds_size(), 200'000);
  EXPECT_EQ(SerializeWithin(kMiB, 7, benchmark).status(),
            absl::OutOfRangeError("benchmark 7: the answer would be 2 MiB large, and 1 MiB are possible; submit it as "
                                  "several benchmarks of fewer runs or steps"));
}

// The bounds of proto/spec.h and what is never left out: a run's result as one on a GPU is, a job and its summary.
TEST(AnswerSize, ABenchmarkWithinTheBoundsFits) {
  v1::Job job;
  job.set_backend(std::string(20, 'b'));
  v1::Run& run = *job.add_runs();
  run.mutable_key()->set_job_index(kMaxRuns);
  run.set_worker(std::string(40, 'w'));
  run.set_slot(std::string(40, 's'));
  v1::RunResult& result = *run.mutable_result();
  result.set_outcome(v1::OUTCOME_MEASURED);
  v1::Environment& environment = *result.mutable_environment();
  for (std::string* text :
       {environment.mutable_host(), environment.mutable_device_name(), environment.mutable_device_uuid(),
        environment.mutable_driver_version(), environment.mutable_cuda_version(),
        environment.mutable_libtorch_version(), environment.mutable_cudnn_version(),
        environment.mutable_attnfleet_version(), environment.mutable_build_id()}) {
    *text = std::string(40, 'e');
  }
  result.mutable_measurement()->set_attention_kernels_unknown(kLeftOut);
  const google::protobuf::Message* const figures[] = {&job.summary(), &result.measurement(), &result.telemetry()};
  size_t bytes = job.ByteSizeLong();
  for (const google::protobuf::Message* message : figures) {
    bytes += 12 * static_cast<size_t>(message->GetDescriptor()->field_count());  // a number, its tag and a bit more
  }
  EXPECT_LT(kMaxRuns * bytes + kMaxTimedSteps * sizeof(double), kMaxFramedAnswerBytes);
}

}  // namespace
}  // namespace attnfleet::server
