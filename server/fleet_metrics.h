#ifndef ATTNFLEET_SERVER_FLEET_METRICS_H_
#define ATTNFLEET_SERVER_FLEET_METRICS_H_

#include <prometheus/collectable.h>

#include <cstdint>
#include <vector>

#include "attnfleet/v1/service.pb.h"
#include "server/coordinator.h"
#include "server/scheduler.h"

namespace attnfleet::server {

// Runs by state and priority, workers and slots by state, counted when Prometheus asks: nothing to keep up to date
// between two scrapes. Absent if the coordinator does not answer in time.
class FleetMetrics : public prometheus::Collectable {
 public:
  // The coordinator must outlive the scrapes.
  explicit FleetMetrics(Coordinator& coordinator) : coordinator_(coordinator) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  Coordinator& coordinator_;
};

// Workers: "connected" (takes runs), "draining" (connected, takes nothing new, of its own accord or an
// administrator's), "stopped" (left while draining of its own accord) and "lost" (no stream), which are forgotten in
// time. Slots: "busy" (a run is on it), "idle", "draining" (idle, its worker is draining), "stopped", "lost" (their
// worker is). Pure.
std::vector<prometheus::MetricFamily> CountFleet(const std::vector<v1::WorkerStatus>& workers);

// Of benchmarks that are not over: "queued" (waits for a slot) and "active" (is on one), by class of priority: "low"
// (below 0), "normal" (0), "high" (above). Pure.
prometheus::MetricFamily CountRuns(const Scheduler& scheduler);

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_FLEET_METRICS_H_
