#include "server/fleet_metrics.h"

#include <prometheus/metric_family.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "proto/support/metrics_endpoint.h"

namespace attnfleet::server {
namespace {

// Within Prometheus's own patience, which is 10 s if nothing else is configured.
constexpr std::chrono::seconds kPatience{5};

// As Scheduler::Counts has them.
constexpr std::array<const char*, 3> kClasses = {"low", "normal", "high"};

}  // namespace

std::vector<prometheus::MetricFamily> FleetMetrics::Collect() const {
  using Families = std::vector<prometheus::MetricFamily>;
  const auto answer = std::make_shared<std::promise<Families>>();
  std::future<Families> families = answer->get_future();
  const absl::Status asked = coordinator_.Look([answer](const Scheduler& scheduler) {
    Families counted = CountFleet(scheduler.Workers());
    counted.push_back(CountRuns(scheduler));
    answer->set_value(std::move(counted));
  });
  if (!asked.ok() || families.wait_for(kPatience) != std::future_status::ready) return {};
  return families.get();
}

std::vector<prometheus::MetricFamily> CountFleet(const std::vector<v1::WorkerStatus>& statuses) {
  std::map<std::string, double> workers = {{"connected", 0}, {"draining", 0}, {"stopped", 0}, {"lost", 0}};
  std::map<std::string, double> slots = {{"busy", 0}, {"idle", 0}, {"draining", 0}, {"stopped", 0}, {"lost", 0}};
  for (const v1::WorkerStatus& worker : statuses) {
    if (worker.info().slots().empty()) continue;  // known from the store, and has not come since the server started
    const std::string state = worker.connected() ? (worker.draining() || worker.drained() ? "draining" : "connected")
                                                 : (worker.draining() ? "stopped" : "lost");
    ++workers[state];
    const int busy = std::min(worker.active_size(), worker.info().slots_size());
    const double others = worker.info().slots_size() - busy;
    if (!worker.connected()) {
      slots[state] += worker.info().slots_size();
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

prometheus::MetricFamily CountRuns(const Scheduler& scheduler) {
  const std::array<Scheduler::RunCounts, kClasses.size()>& counts = scheduler.counts().by_priority;
  prometheus::MetricFamily runs =
      MakeGaugeFamily("attnfleet_runs", "Runs that have not ended, by state and class of priority.");
  for (size_t i = 0; i < kClasses.size(); ++i) {
    AddGauge(runs, {{"state", "queued"}, {"priority", kClasses[i]}}, static_cast<double>(counts[i].queued));
    AddGauge(runs, {{"state", "active"}, {"priority", kClasses[i]}}, static_cast<double>(counts[i].active));
  }
  return runs;
}

}  // namespace attnfleet::server
