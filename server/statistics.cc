#include "server/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace attnfleet::server {
namespace {

constexpr double kGib = 1024.0 * 1024.0 * 1024.0;

bool IsMeasured(const v1::Run& run) {
  return run.state() == v1::RUN_STATE_ENDED && run.result().outcome() == v1::OUTCOME_MEASURED;
}

double Speed(const v1::Run& run) { return run.result().measurement().iterations_per_second(); }

double SampleStddev(const std::vector<double>& values, double mean) {
  if (values.size() < 2) return 0;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

// Of the job's speed over eager's, repetition by repetition.
std::vector<double> PairedRatios(const v1::Job& job, const v1::Job& eager) {
  std::vector<double> ratios;
  for (int i = 0; i < std::min(job.runs_size(), eager.runs_size()); ++i) {
    if (IsMeasured(job.runs(i)) && IsMeasured(eager.runs(i)) && Speed(eager.runs(i)) > 0) {
      ratios.push_back(Speed(job.runs(i)) / Speed(eager.runs(i)));
    }
  }
  return ratios;
}

v1::JobSummary SummarizeJob(const v1::Job& job, const v1::Job* eager) {
  v1::JobSummary summary;
  std::vector<double> speeds;
  std::vector<double> medians;
  std::vector<double> p90s;
  std::vector<double> p99s;
  std::set<std::string> workers;
  std::set<std::string> contamination;
  for (const v1::Run& run : job.runs()) {
    if (run.state() != v1::RUN_STATE_ENDED) continue;
    const v1::RunResult& result = run.result();
    summary.set_ended_runs(summary.ended_runs() + 1);
    if (!run.worker().empty()) workers.insert(run.worker());
    if (!result.environment().device_name().empty()) summary.set_device_name(result.environment().device_name());
    for (const std::string& reason : result.contamination()) contamination.insert(reason);
    if (!IsMeasured(run)) {
      // The outcome of the first run without a figure; any figure below takes its place.
      if (summary.outcome() == v1::OUTCOME_UNSPECIFIED) summary.set_outcome(result.outcome());
      if (summary.reason().empty()) summary.set_reason(ReasonLine(result));
      continue;
    }
    const v1::Measurement& measurement = result.measurement();
    speeds.push_back(measurement.iterations_per_second());
    medians.push_back(measurement.step_seconds_median());
    p90s.push_back(measurement.step_seconds_p90());
    p99s.push_back(measurement.step_seconds_p99());
    summary.set_peak_allocated_bytes(std::max(summary.peak_allocated_bytes(), measurement.peak_allocated_bytes()));
    summary.set_peak_reserved_bytes(std::max(summary.peak_reserved_bytes(), measurement.peak_reserved_bytes()));
    summary.set_peak_device_bytes(std::max(summary.peak_device_bytes(), measurement.peak_device_bytes()));
    summary.set_peak_resident_bytes(std::max(summary.peak_resident_bytes(), measurement.peak_resident_bytes()));
  }
  if (workers.size() == 1) summary.set_worker(*workers.begin());
  if (workers.size() > 1) summary.set_worker("several");
  for (const std::string& reason : contamination) summary.add_contamination(reason);
  if (speeds.empty()) return summary;

  summary.set_outcome(v1::OUTCOME_MEASURED);
  summary.set_measured_runs(static_cast<uint32_t>(speeds.size()));
  const double mean = std::accumulate(speeds.begin(), speeds.end(), 0.0) / static_cast<double>(speeds.size());
  summary.set_iterations_per_second_mean(mean);
  summary.set_iterations_per_second_stddev(SampleStddev(speeds, mean));
  summary.set_iterations_per_second_min(*std::min_element(speeds.begin(), speeds.end()));
  summary.set_iterations_per_second_max(*std::max_element(speeds.begin(), speeds.end()));
  summary.set_iterations_per_second_median(Median(speeds));
  summary.set_step_seconds_median(Median(medians));
  summary.set_step_seconds_p90(Median(p90s));
  summary.set_step_seconds_p99(Median(p99s));
  if (eager != nullptr) {
    const std::vector<double> ratios = PairedRatios(job, *eager);
    if (!ratios.empty()) {
      summary.set_ratio_to_eager(Median(ratios));
      summary.set_ratio_to_eager_min(*std::min_element(ratios.begin(), ratios.end()));
      summary.set_ratio_to_eager_max(*std::max_element(ratios.begin(), ratios.end()));
    }
  }
  return summary;
}

}  // namespace

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::string ReasonLine(const v1::RunResult& result) {
  std::string line = result.reason();
  if (result.outcome() == v1::OUTCOME_OUT_OF_MEMORY && result.has_out_of_memory()) {
    const v1::OutOfMemory& oom = result.out_of_memory();
    line = "OOM";
    if (oom.requested_bytes() > 0) {
      absl::StrAppendFormat(&line, ": asked for %.1f GiB", static_cast<double>(oom.requested_bytes()) / kGib);
      if (oom.total_bytes() > 0) {
        absl::StrAppendFormat(&line, " with %.1f of %.1f GiB free", static_cast<double>(oom.free_bytes()) / kGib,
                              static_cast<double>(oom.total_bytes()) / kGib);
      }
    }
    if (!oom.phase().empty()) absl::StrAppend(&line, " (", oom.phase(), ")");
  }
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

void Summarize(v1::Benchmark& benchmark) {
  for (v1::Job& job : *benchmark.mutable_jobs()) {
    const v1::Job* eager = nullptr;
    for (const v1::Job& other : benchmark.jobs()) {
      if (other.group() == job.group() && other.backend() == "eager") eager = &other;
    }
    *job.mutable_summary() = SummarizeJob(job, eager);
  }
}

}  // namespace attnfleet::server
