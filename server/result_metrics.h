#ifndef ATTNFLEET_SERVER_RESULT_METRICS_H_
#define ATTNFLEET_SERVER_RESULT_METRICS_H_

#include <prometheus/collectable.h>

#include <list>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::server {

// What finished benchmarks measured, as gauges: the newest result of each backend, shape, device, model, precision
// and step.
// Never a benchmark's or a job's number, and at most kMaxSeries combinations: the one that was set longest ago goes.
// Thread-safe.
class ResultMetrics : public prometheus::Collectable {
 public:
  static constexpr size_t kMaxSeries = 500;

  // Of every job that was measured without contamination; `benchmark` has its summaries (Summarize).
  void Set(const v1::Benchmark& benchmark);

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  using Labels = std::vector<std::pair<std::string, std::string>>;
  struct Series {
    Labels labels;
    v1::JobSummary summary;
  };

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::list<Series> series_;  // set longest ago first
  std::map<Labels, std::list<Series>::iterator> by_labels_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_RESULT_METRICS_H_
