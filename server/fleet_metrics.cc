#include "server/fleet_metrics.h"

#include <prometheus/metric_family.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <map>
#include <memory>
#include <string>

#include "proto/support/metrics_endpoint.h"

namespace attnfleet::server {
namespace {

// Within Prometheus's own patience, which is 10 s if nothing else is configured.
constexpr std::chrono::seconds kPatience{5};

}  // namespace

std::vector<prometheus::MetricFamily> FleetMetrics::Collect() const {
  const auto answer = std::make_shared<std::promise<absl::StatusOr<v1::ListWorkersResponse>>>();
  std::future<absl::StatusOr<v1::ListWorkersResponse>> workers = answer->get_future();
  coordinator_.ListWorkers(
      [answer](absl::StatusOr<v1::ListWorkersResponse> response) { answer->set_value(std::move(response)); });
  if (workers.wait_for(kPatience) != std::future_status::ready) return {};
  const absl::StatusOr<v1::ListWorkersResponse> response = workers.get();
  if (!response.ok()) return {};
  return CountFleet(*response);
}

std::vector<prometheus::MetricFamily> CountFleet(const v1::ListWorkersResponse& response) {
  std::map<std::string, double> workers = {{"connected", 0}, {"draining", 0}, {"lost", 0}};
  std::map<std::string, double> slots = {{"busy", 0}, {"idle", 0}, {"draining", 0}, {"lost", 0}};
  for (const v1::WorkerStatus& worker : response.workers()) {
    const std::string state = !worker.connected() ? "lost" : worker.draining() ? "draining" : "connected";
    ++workers[state];
    const int busy = std::min(worker.active_size(), worker.info().slots_size());
    const double others = worker.info().slots_size() - busy;
    if (state == "lost") {
      slots["lost"] += worker.info().slots_size();
    } else {
      slots["busy"] += busy;
      slots[state == "draining" ? "draining" : "idle"] += others;
    }
  }
  std::vector<prometheus::MetricFamily> families = {MakeGaugeFamily("attnfleet_workers", "Known workers, by state."),
                                                    MakeGaugeFamily("attnfleet_slots", "Their slots, by state.")};
  for (const auto& [state, count] : workers) AddGauge(families[0], {{"state", state}}, count);
  for (const auto& [state, count] : slots) AddGauge(families[1], {{"state", state}}, count);
  return families;
}

}  // namespace attnfleet::server
