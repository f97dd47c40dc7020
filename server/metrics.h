#ifndef ATTNFLEET_SERVER_METRICS_H_
#define ATTNFLEET_SERVER_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/coordinator.h"

namespace attnfleet::server {

// The coordinator's figures for Prometheus. Labels are bounded: never a benchmark or a job.
class Metrics {
 public:
  Metrics();

  // Serves /metrics on HOST:PORT. UNAVAILABLE names the address.
  absl::Status Serve(const std::string& address);

  void Observe(const BatchReport& report);

 private:
  const std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Gauge& runs_queued_;
  prometheus::Gauge& runs_active_;
  prometheus::Gauge& workers_connected_;
  prometheus::Gauge& slots_;
  prometheus::Histogram& save_seconds_;
  prometheus::Histogram& batch_events_;
  std::map<v1::Outcome, prometheus::Counter*> runs_ended_;
  std::unique_ptr<prometheus::Exposer> exposer_;  // last: it reads the registry
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_METRICS_H_
