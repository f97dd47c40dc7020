#include "server/result_metrics.h"

#include <prometheus/metric_family.h>

#include "proto/spec.h"
#include "proto/support/metrics_endpoint.h"

namespace attnfleet::server {
namespace {

// A device's name is what its driver says; a worker may say anything.
constexpr size_t kMaxDeviceName = 64;

std::string Clip(const std::string& text) {
  // Not within a character.
  size_t end = std::min(text.size(), kMaxDeviceName);
  while (end < text.size() && end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

// The precision that was used, where the spec leaves it to the device.
std::string PrecisionUsed(const v1::Job& job) {
  for (const v1::Run& run : job.runs()) {
    if (run.result().outcome() == v1::OUTCOME_MEASURED) return Clip(run.result().environment().precision());
  }
  return "";
}

// Whose operations the step was made of; a trainer that does not say has the reference alone.
std::string StepUsed(const v1::Job& job) {
  for (const v1::Run& run : job.runs()) {
    if (run.result().outcome() == v1::OUTCOME_MEASURED && !run.result().environment().step().empty()) {
      return Clip(run.result().environment().step());
    }
  }
  return "reference";
}

}  // namespace

void ResultMetrics::Set(const v1::Benchmark& benchmark) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const v1::Job& job : benchmark.jobs()) {
    if (job.summary().outcome() != v1::OUTCOME_MEASURED || job.summary().includes_contaminated()) continue;
    Labels labels = {{"backend", job.backend()},
                     {"shape", FormatShape(job.shape())},
                     {"device", Clip(job.summary().device_name())},
                     {"model", ModelSizeName(benchmark.spec().training().model_size())},
                     {"precision", PrecisionUsed(job)},
                     {"step", StepUsed(job)}};
    if (const auto found = by_labels_.find(labels); found != by_labels_.end()) {
      series_.erase(found->second);
      by_labels_.erase(found);
    }
    if (series_.size() >= kMaxSeries) {
      by_labels_.erase(series_.front().labels);
      series_.pop_front();
    }
    series_.push_back({labels, job.summary()});
    by_labels_.emplace(std::move(labels), std::prev(series_.end()));
  }
}

std::vector<prometheus::MetricFamily> ResultMetrics::Collect() const {
  prometheus::MetricFamily speed =
      MakeGaugeFamily("attnfleet_benchmark_iterations_per_second",
                      "Median training steps per second in the newest finished benchmark.");
  prometheus::MetricFamily allocated =
      MakeGaugeFamily("attnfleet_benchmark_peak_allocated_bytes", "Peak device memory that tensors took; CUDA alone.");
  prometheus::MetricFamily resident =
      MakeGaugeFamily("attnfleet_benchmark_peak_resident_bytes", "Peak resident set of the trainer process.");
  prometheus::MetricFamily ratio =
      MakeGaugeFamily("attnfleet_benchmark_eager_speed_ratio",
                      "Steps per second over those of eager, paired by repetition; absent without eager.");
  // What is not known is 0 in the summary, and absent here.
  const auto add = [](prometheus::MetricFamily& family, const Labels& labels, double value) {
    if (value > 0) AddGauge(family, labels, value);
  };
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const Series& series : series_) {
    add(speed, series.labels, series.summary.iterations_per_second_median());
    add(allocated, series.labels, static_cast<double>(series.summary.peak_allocated_bytes()));
    add(resident, series.labels, static_cast<double>(series.summary.peak_resident_bytes()));
    add(ratio, series.labels, series.summary.ratio_to_eager());
  }
  std::vector<prometheus::MetricFamily> families;
  for (prometheus::MetricFamily* family : {&speed, &allocated, &resident, &ratio}) {
    if (!family->metric.empty()) families.push_back(std::move(*family));
  }
  return families;
}

}  // namespace attnfleet::server
