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

constexpr std::array<const char*, 3> kClasses = {"low", "normal", "high"};

size_t ClassOf(int32_t priority) { return priority < 0 ? 0 : priority == 0 ? 1 : 2; }

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
  std::map<std::string, double> workers = {{"connected", 0}, {"draining", 0}, {"lost", 0}};
  std::map<std::string, double> slots = {{"busy", 0}, {"idle", 0}, {"draining", 0}, {"lost", 0}};
  for (const v1::WorkerStatus& worker : statuses) {
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

prometheus::MetricFamily CountRuns(const Scheduler& scheduler) {
  std::array<double, kClasses.size()> queued{};
  std::array<double, kClasses.size()> active{};
  for (uint64_t id = 1; id <= scheduler.newest(); ++id) {
    const v1::Benchmark* benchmark = scheduler.Find(id);
    if (benchmark == nullptr || benchmark->state() == v1::BENCHMARK_STATE_FINISHED ||
        benchmark->state() == v1::BENCHMARK_STATE_CANCELLED) {
      continue;
    }
    const size_t priority = ClassOf(0);
    for (const v1::Job& job : benchmark->jobs()) {
      for (const v1::Run& run : job.runs()) {
        if (run.state() == v1::RUN_STATE_QUEUED) ++queued[priority];
        if (run.state() == v1::RUN_STATE_ASSIGNED || run.state() == v1::RUN_STATE_RUNNING) ++active[priority];
      }
    }
  }
  prometheus::MetricFamily runs =
      MakeGaugeFamily("attnfleet_runs", "Runs that have not ended, by state and class of priority.");
  for (size_t i = 0; i < kClasses.size(); ++i) {
    AddGauge(runs, {{"state", "queued"}, {"priority", kClasses[i]}}, queued[i]);
    AddGauge(runs, {{"state", "active"}, {"priority", kClasses[i]}}, active[i]);
  }
  return runs;
}

}  // namespace attnfleet::server
