#include "server/result_metrics.h"

#include <prometheus/metric_family.h>

#include <algorithm>

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

void ResultMetrics::Set(const v1::Benchmark& benchmark, uint64_t order) {
  const std::lock_guard<std::mutex> lock(mutex_);
  newest_ = std::max(newest_, order);
  for (const v1::Job& job : benchmark.jobs()) {
    if (job.summary().outcome() != v1::OUTCOME_MEASURED || job.summary().includes_contaminated()) continue;
    results_.Set({{"backend", job.backend()},
                  {"shape", FormatShape(job.shape())},
                  {"device", Clip(job.summary().device_name())},
                  {"model", ModelSizeName(benchmark.spec().training().model_size())},
                  {"precision", PrecisionUsed(job)},
                  {"step", StepUsed(job)}},
                 order, job.summary());
  }
  for (const v1::NodeSummary& node : benchmark.fleet().nodes()) {
    if (node.cells() == 0) continue;
    nodes_.Set({{"worker", node.node().worker()}, {"slot", node.node().slot()}}, order, node);
  }
}

uint64_t ResultMetrics::newest() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return newest_;
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
  prometheus::MetricFamily slow = MakeGaugeFamily(
      "attnfleet_node_slow", "1 if the newest benchmark that compared this node with others found it slow, else 0.");
  prometheus::MetricFamily relative =
      MakeGaugeFamily("attnfleet_node_speed_ratio", "Steps per second over the median of the nodes of its device.");
  // What is not known is 0 in the summary, and absent here.
  const auto add = [](prometheus::MetricFamily& family, const Labels& labels, double value) {
    if (value > 0) AddGauge(family, labels, value);
  };
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& [labels, order, summary] : results_.all()) {
    add(speed, labels, summary.iterations_per_second_median());
    add(allocated, labels, static_cast<double>(summary.peak_allocated_bytes()));
    add(resident, labels, static_cast<double>(summary.peak_resident_bytes()));
    add(ratio, labels, summary.ratio_to_eager());
  }
  for (const auto& [labels, order, node] : nodes_.all()) {
    AddGauge(slow, labels, node.slow() ? 1 : 0);
    add(relative, labels, node.relative_speed());
  }
  std::vector<prometheus::MetricFamily> families;
  for (prometheus::MetricFamily* family : {&speed, &allocated, &resident, &ratio, &slow, &relative}) {
    if (!family->metric.empty()) families.push_back(std::move(*family));
  }
  return families;
}

}  // namespace attnfleet::server
