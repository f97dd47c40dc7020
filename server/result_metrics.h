#ifndef ATTNFLEET_SERVER_RESULT_METRICS_H_
#define ATTNFLEET_SERVER_RESULT_METRICS_H_

#include <prometheus/collectable.h>

#include <cstdint>
#include <mutex>
#include <vector>

#include "attnfleet/v1/benchmark.pb.h"
#include "server/bounded_series.h"

namespace attnfleet::server {

// What finished benchmarks measured, as gauges: the newest result of each backend, shape, device, model, precision and
// step, and how fast each node (worker and slot) was beside the others. Never a benchmark's or a job's number, and at
// most kMaxSeries combinations and kMaxNodes nodes. Thread-safe.
class ResultMetrics : public prometheus::Collectable {
 public:
  static constexpr size_t kMaxSeries = 500;
  static constexpr size_t kMaxNodes = 2'000;

  // Of every job that was measured without contamination, and of every node that could be compared; `benchmark` has its
  // summaries (Summarize, SummarizeFleet). `order` grows from one that ends to the next: one that ended before another
  // counts as older, whichever comes first.
  void Set(const v1::Benchmark& benchmark, uint64_t order);

  // The highest order so far.
  uint64_t newest() const;

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  uint64_t newest_ = 0;
  BoundedSeries<v1::JobSummary> results_{kMaxSeries};
  BoundedSeries<v1::NodeSummary> nodes_{kMaxNodes};
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_RESULT_METRICS_H_
