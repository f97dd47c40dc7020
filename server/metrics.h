#ifndef ATTNFLEET_SERVER_METRICS_H_
#define ATTNFLEET_SERVER_METRICS_H_

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "server/coordinator.h"
#include "server/result_metrics.h"
#include "server/rpc_metrics.h"

namespace attnfleet::server {

// The coordinator's figures for Prometheus, as far as they are kept from batch to batch (see FleetMetrics for the
// rest). Labels are bounded: never a benchmark, a job, a worker or a user.
class Metrics {
 public:
  Metrics();

  // On the coordinator's thread.
  void Observe(const BatchReport& report);
  // See ResultMetrics. Thread-safe.
  void Finished(const v1::Benchmark& benchmark, uint64_t order) { results_->Set(benchmark, order); }
  uint64_t newest_finished() const { return results_->newest(); }

  RpcMetrics& rpcs() { return rpcs_; }

  // Whether this server leads; at first it does not.
  void SetLeads(bool leads) { leads_.Set(leads ? 1 : 0); }

  // What is to be served always (see ServeMetrics), and what only while this server leads.
  std::vector<std::shared_ptr<prometheus::Collectable>> collectables() const { return {registry_}; }
  std::shared_ptr<prometheus::Collectable> results() const { return results_; }

 private:
  const std::shared_ptr<prometheus::Registry> registry_;
  const std::shared_ptr<ResultMetrics> results_;
  RpcMetrics rpcs_;
  prometheus::Gauge& leads_;
  prometheus::Histogram& queue_seconds_;
  prometheus::Histogram& save_seconds_;
  prometheus::Counter& save_failures_;
  prometheus::Histogram& batch_events_;
  const std::map<v1::Outcome, prometheus::Counter*> runs_ended_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_METRICS_H_
