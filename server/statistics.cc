#include "server/statistics.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <set>
#include <string>

#include "proto/reason.h"
#include "server/bootstrap.h"

namespace attnfleet::server {
namespace {

bool IsMeasured(const v1::Run& run) {
  return run.state() == v1::RUN_STATE_ENDED && run.result().outcome() == v1::OUTCOME_MEASURED;
}

bool Counts(const v1::Run& run, bool include_contaminated) {
  return IsMeasured(run) && (include_contaminated || run.result().contamination().empty());
}

double Speed(const v1::Run& run) { return run.result().measurement().iterations_per_second(); }

double Mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double SampleStddev(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double mean = Mean(values);
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

// Of the job's speed over eager's, repetition by repetition; where both ran on one slot, for the spread between devices
// is no speed-up.
std::vector<double> PairedRatios(const v1::Job& job, const v1::Job& eager, bool include_contaminated) {
  std::vector<double> ratios;
  for (int i = 0; i < std::min(job.runs_size(), eager.runs_size()); ++i) {
    const v1::Run& run = job.runs(i);
    const v1::Run& base = eager.runs(i);
    if (!Counts(run, include_contaminated) || !Counts(base, include_contaminated)) continue;
    if (run.worker() != base.worker() || run.slot() != base.slot()) continue;
    if (Speed(base) > 0) ratios.push_back(Speed(run) / Speed(base));
  }
  return ratios;
}

std::string OneOrSeveral(const std::set<std::string>& names) {
  if (names.empty()) return "";
  return names.size() == 1 ? *names.begin() : "several";
}

// Everything about a job but its figures.
void AddRuns(const v1::Job& job, v1::JobSummary& summary) {
  std::set<std::string> workers;
  std::set<std::string> devices;
  std::set<std::string> contamination;
  for (const v1::Run& run : job.runs()) {
    if (run.state() != v1::RUN_STATE_ENDED) continue;
    const v1::RunResult& result = run.result();
    summary.set_ended_runs(summary.ended_runs() + 1);
    if (!run.worker().empty()) workers.insert(run.worker());
    if (!result.environment().device_name().empty()) summary.set_device_name(result.environment().device_name());
    if (!result.environment().device_uuid().empty()) devices.insert(result.environment().device_uuid());
    if (run.started_unix_ms() > 0 &&
        (summary.started_unix_ms() == 0 || run.started_unix_ms() < summary.started_unix_ms())) {
      summary.set_started_unix_ms(run.started_unix_ms());
    }
    summary.set_ended_unix_ms(std::max(summary.ended_unix_ms(), run.ended_unix_ms()));
    if (IsMeasured(run)) {
      summary.set_measured_runs(summary.measured_runs() + 1);
      if (!result.contamination().empty()) summary.set_contaminated_runs(summary.contaminated_runs() + 1);
      contamination.insert(result.contamination().begin(), result.contamination().end());
    } else {
      // The outcome of the first run without a figure; any figure takes its place.
      if (summary.outcome() == v1::OUTCOME_UNSPECIFIED) summary.set_outcome(result.outcome());
      if (summary.reason().empty()) summary.set_reason(ReasonLine(result));
    }
  }
  if (summary.measured_runs() > 0) summary.set_outcome(v1::OUTCOME_MEASURED);
  summary.set_worker(OneOrSeveral(workers));
  summary.set_device_uuid(OneOrSeveral(devices));
  for (const std::string& reason : contamination) summary.add_contamination(reason);
}

// The largest peaks, and the parts of the largest.
void AddMemory(const v1::Measurement& measurement, v1::JobSummary& summary) {
  if (measurement.peak_allocated_bytes() > summary.peak_allocated_bytes()) {
    summary.set_peak_allocated_bytes(measurement.peak_allocated_bytes());
    summary.set_model_bytes(measurement.model_bytes());
    summary.set_gradient_bytes(measurement.gradient_bytes());
    summary.set_optimizer_bytes(measurement.optimizer_bytes());
    summary.set_activation_bytes(measurement.activation_bytes());
  }
  summary.set_peak_reserved_bytes(std::max(summary.peak_reserved_bytes(), measurement.peak_reserved_bytes()));
  summary.set_peak_device_bytes(std::max(summary.peak_device_bytes(), measurement.peak_device_bytes()));
  summary.set_peak_resident_bytes(std::max(summary.peak_resident_bytes(), measurement.peak_resident_bytes()));
}

void AddSpeeds(const std::vector<double>& speeds, v1::JobSummary& summary) {
  summary.set_iterations_per_second_median(Median(speeds));
  summary.set_iterations_per_second_min(*std::min_element(speeds.begin(), speeds.end()));
  summary.set_iterations_per_second_max(*std::max_element(speeds.begin(), speeds.end()));
  summary.set_iterations_per_second_mean(Mean(speeds));
  summary.set_iterations_per_second_stddev(SampleStddev(speeds));
  const Interval interval = BootstrapInterval(speeds, Mean);
  summary.set_iterations_per_second_mean_low(interval.low);
  summary.set_iterations_per_second_mean_high(interval.high);
}

void AddRatios(const std::vector<double>& ratios, v1::JobSummary& summary) {
  if (ratios.empty()) return;
  summary.set_ratio_to_eager(Median(ratios));
  summary.set_ratio_to_eager_min(*std::min_element(ratios.begin(), ratios.end()));
  summary.set_ratio_to_eager_max(*std::max_element(ratios.begin(), ratios.end()));
  summary.set_ratio_pairs(static_cast<uint32_t>(ratios.size()));
  const Interval interval = BootstrapInterval(ratios, Median);
  summary.set_ratio_to_eager_low(interval.low);
  summary.set_ratio_to_eager_high(interval.high);
}

// The figures of the runs that count; there is at least one.
void AddFigures(const v1::Job& job, v1::JobSummary& summary) {
  std::vector<double> speeds;
  std::vector<double> medians;
  std::vector<double> p90s;
  std::vector<double> p99s;
  std::vector<double> utilizations;
  std::vector<double> energies;
  std::vector<double> token_speeds;
  std::vector<double> waits;
  for (const v1::Run& run : job.runs()) {
    if (!Counts(run, summary.includes_contaminated())) continue;
    const v1::Measurement& measurement = run.result().measurement();
    speeds.push_back(Speed(run));
    medians.push_back(measurement.step_seconds_median());
    p90s.push_back(measurement.step_seconds_p90());
    p99s.push_back(measurement.step_seconds_p99());
    AddMemory(measurement, summary);
    if (measurement.peak_flops_per_second() > 0) {
      utilizations.push_back(Speed(run) * measurement.model_flops_per_iteration() /
                             measurement.peak_flops_per_second());
    }
    if (measurement.energy_joules_per_iteration() > 0) energies.push_back(measurement.energy_joules_per_iteration());
    if (measurement.tokens_per_iteration() > 0) {
      token_speeds.push_back(Speed(run) * static_cast<double>(measurement.tokens_per_iteration()));
    }
    if (measurement.wall_seconds() > 0) {
      waits.push_back(measurement.data_wait_seconds() / measurement.wall_seconds());
    }
  }
  AddSpeeds(speeds, summary);
  summary.set_step_seconds_median(Median(medians));
  summary.set_step_seconds_p90(Median(p90s));
  summary.set_step_seconds_p99(Median(p99s));
  summary.set_model_flops_utilization(Median(utilizations));
  summary.set_energy_joules_per_iteration(Median(energies));
  summary.set_tokens_per_second(Median(token_speeds));
  summary.set_data_wait_part(Median(waits));
}

v1::JobSummary SummarizeJob(const v1::Job& job, const v1::Job* eager, bool include_contaminated) {
  v1::JobSummary summary;
  AddRuns(job, summary);
  if (summary.measured_runs() == 0) return summary;
  const bool nothing_else = summary.contaminated_runs() == summary.measured_runs();
  summary.set_includes_contaminated(summary.contaminated_runs() > 0 && (include_contaminated || nothing_else));
  AddFigures(job, summary);
  if (eager != nullptr) AddRatios(PairedRatios(job, *eager, include_contaminated), summary);
  return summary;
}

}  // namespace

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return values.size() % 2 == 1 ? *middle : (*std::max_element(values.begin(), middle) + *middle) / 2;
}

void Summarize(v1::Benchmark& benchmark, bool include_contaminated) {
  std::vector<const v1::Job*> eager_of_group;
  for (const v1::Job& job : benchmark.jobs()) {
    if (job.group() >= eager_of_group.size()) eager_of_group.resize(size_t{job.group()} + 1);
    if (job.backend() == "eager") eager_of_group[job.group()] = &job;
  }
  for (v1::Job& job : *benchmark.mutable_jobs()) {
    *job.mutable_summary() = SummarizeJob(job, eager_of_group[job.group()], include_contaminated);
  }
}

}  // namespace attnfleet::server
