#ifndef ATTNFLEET_TESTS_CLIENT_SAMPLE_H_
#define ATTNFLEET_TESTS_CLIENT_SAMPLE_H_

#include <string>
#include <vector>

#include "attnfleet/v1/benchmark.pb.h"
#include "proto/spec.h"

// Benchmarks as a server would send them.

namespace attnfleet::client {

// Backends x shapes 32x128 and 64x1024, `repetitions` queued runs each.
inline v1::Benchmark QueuedBenchmark(const std::vector<std::string>& backends, int repetitions) {
  v1::Benchmark benchmark;
  benchmark.set_id(12);
  v1::BenchmarkSpec& spec = *benchmark.mutable_spec();
  for (const std::string& backend : backends) spec.add_backends(backend);
  for (const auto& [batch, length] : {std::pair(32, 128), std::pair(64, 1024)}) {
    v1::Shape* shape = spec.add_shapes();
    shape->set_batch(batch);
    shape->set_sequence_length(length);
  }
  spec.set_repetitions(repetitions);
  spec.mutable_training()->set_boxes(v1::BOX_LAYOUT_RANDOM);
  (void)ApplyPreset(spec);
  for (v1::Job& job : ExpandJobs(12, spec)) {
    benchmark.set_runs_total(benchmark.runs_total() + static_cast<uint32_t>(job.runs_size()));
    *benchmark.add_jobs() = std::move(job);
  }
  benchmark.set_state(v1::BENCHMARK_STATE_QUEUED);
  return benchmark;
}

inline void Measure(v1::Job& job, double iterations_per_second, double ratio, int64_t allocated_bytes) {
  for (v1::Run& run : *job.mutable_runs()) {
    run.set_state(v1::RUN_STATE_ENDED);
    run.set_worker("w1");
    run.set_slot("GPU-0");
    run.mutable_result()->set_outcome(v1::OUTCOME_MEASURED);
    run.mutable_result()->mutable_measurement()->set_iterations_per_second(iterations_per_second);
    v1::Environment& environment = *run.mutable_result()->mutable_environment();
    environment.set_host("node7");
    environment.set_device_kind(v1::DEVICE_KIND_CUDA);
    environment.set_device_name("NVIDIA H100 80GB HBM3");
    environment.set_device_uuid("GPU-7a");
    environment.set_libtorch_version("2.11.0");
    environment.set_cuda_version("13.0");
    environment.set_precision("bf16-mixed");
  }
  v1::JobSummary& summary = *job.mutable_summary();
  summary.set_outcome(v1::OUTCOME_MEASURED);
  summary.set_measured_runs(static_cast<uint32_t>(job.runs_size()));
  summary.set_ended_runs(static_cast<uint32_t>(job.runs_size()));
  summary.set_iterations_per_second_median(iterations_per_second);
  summary.set_iterations_per_second_stddev(0.125);
  if (ratio > 0) {
    summary.set_ratio_to_eager(ratio);
    summary.set_ratio_pairs(summary.measured_runs());
    summary.set_ratio_to_eager_low(ratio - 0.02);
    summary.set_ratio_to_eager_high(ratio + 0.01);
  }
  summary.set_iterations_per_second_mean(iterations_per_second);
  summary.set_iterations_per_second_mean_low(iterations_per_second * 0.99);
  summary.set_iterations_per_second_mean_high(iterations_per_second * 1.01);
  summary.set_model_flops_utilization(0.412);
  summary.set_peak_reserved_bytes(allocated_bytes + allocated_bytes / 10);
  summary.set_peak_device_bytes(allocated_bytes + allocated_bytes / 5);
  summary.set_step_seconds_median(1 / iterations_per_second);
  summary.set_started_unix_ms(1'790'000'010'000);
  summary.set_ended_unix_ms(1'790'000'290'000);
  summary.set_peak_allocated_bytes(allocated_bytes);
  summary.set_worker("w1");
  summary.set_device_name("NVIDIA H100 80GB HBM3");
  summary.set_device_uuid("GPU-7a");
}

inline void EndWithout(v1::Job& job, v1::Outcome outcome, const std::string& reason) {
  for (v1::Run& run : *job.mutable_runs()) {
    run.set_state(v1::RUN_STATE_ENDED);
    run.mutable_result()->set_outcome(outcome);
    run.mutable_result()->set_reason(reason);
  }
  job.mutable_summary()->set_outcome(outcome);
  job.mutable_summary()->set_reason(reason);
  job.mutable_summary()->set_ended_runs(static_cast<uint32_t>(job.runs_size()));
}

// eager, sdpa and flash2 at two shapes: measured, out of memory, unsupported.
inline v1::Benchmark FinishedBenchmark() {
  v1::Benchmark benchmark = QueuedBenchmark({"eager", "sdpa", "flash2"}, 3);
  Measure(*benchmark.mutable_jobs(0), 23.4, 1, 5'130'000'000);
  Measure(*benchmark.mutable_jobs(1), 29.35, 1.254, 4'410'000'000);
  EndWithout(*benchmark.mutable_jobs(2), v1::OUTCOME_UNSUPPORTED, "attention bias is not possible");
  EndWithout(*benchmark.mutable_jobs(3), v1::OUTCOME_OUT_OF_MEMORY, "asked for 25.8 GB, 3.1 GB free");
  Measure(*benchmark.mutable_jobs(4), 2.98, 0, 26'910'000'000);
  EndWithout(*benchmark.mutable_jobs(5), v1::OUTCOME_UNSUPPORTED, "attention bias is not possible");
  benchmark.set_state(v1::BENCHMARK_STATE_FINISHED);
  benchmark.set_submitted_unix_ms(1'790'000'000'000);
  benchmark.set_ended_unix_ms(1'790'000'300'000);
  benchmark.set_runs_ended(benchmark.runs_total());
  return benchmark;
}

}  // namespace attnfleet::client

#endif  // ATTNFLEET_TESTS_CLIENT_SAMPLE_H_
