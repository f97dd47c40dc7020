#include "worker/metrics.h"

#include <prometheus/metric_family.h>

#include "proto/spec.h"
#include "proto/support/metrics_endpoint.h"

namespace attnfleet::worker {

Metrics::Metrics(const std::vector<v1::Slot>& slots)
    : trainer_starts_(prometheus::BuildCounter()
                          .Name("attnfleet_worker_trainer_starts_total")
                          .Help("Trainers that were started for a run.")
                          .Register(registry_)
                          .Add({})),
      trainer_exits_(AddOutcomes(prometheus::BuildCounter()
                                     .Name("attnfleet_worker_trainer_exits_total")
                                     .Help("Trainers that ended, by the outcome of their run; cancelled: stopped.")
                                     .Register(registry_))) {
  for (const v1::Slot& slot : slots) slots_[slot.id()];
}

void Metrics::SetConnected(bool connected) {
  const std::lock_guard<std::mutex> lock(mutex_);
  connected_ = connected;
}

void Metrics::SetUndelivered(size_t results) {
  const std::lock_guard<std::mutex> lock(mutex_);
  undelivered_ = results;
}

void Metrics::SetOutOfService(size_t slots) {
  const std::lock_guard<std::mutex> lock(mutex_);
  out_of_service_ = slots;
}

void Metrics::TrainerStarted(const v1::StartRun& start) {
  trainer_starts_.Increment();
  const std::lock_guard<std::mutex> lock(mutex_);
  slots_[start.slot()] = start;
}

void Metrics::TrainerEnded(const v1::StartRun& start, v1::Outcome outcome) {
  if (const auto found = trainer_exits_.find(outcome); found != trainer_exits_.end()) found->second->Increment();
  const std::lock_guard<std::mutex> lock(mutex_);
  slots_[start.slot()].reset();
}

std::vector<prometheus::MetricFamily> Metrics::Collect() const {
  prometheus::MetricFamily connected =
      MakeGaugeFamily("attnfleet_worker_connected", "1 while the coordinator has accepted this worker, else 0.");
  prometheus::MetricFamily undelivered = MakeGaugeFamily(
      "attnfleet_worker_undelivered_results",
      "Results, and runs that were handed back, on this worker's disk that no coordinator has acknowledged.");
  prometheus::MetricFamily slots = MakeGaugeFamily("attnfleet_worker_slots", "This worker's slots, by state.");
  prometheus::MetricFamily runs =
      MakeGaugeFamily("attnfleet_worker_run_info", "1 for what runs on a slot now; absent while it is idle.");
  double busy = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    AddGauge(connected, {}, connected_ ? 1 : 0);
    AddGauge(undelivered, {}, static_cast<double>(undelivered_));
    for (const auto& [id, run] : slots_) {
      if (!run) continue;
      ++busy;
      AddGauge(runs,
               {{"slot", id},
                {"backend", run->backend()},
                {"shape", FormatShape(run->shape())},
                {"model", ModelSizeName(run->training().model_size())}},
               1);
    }
    AddGauge(slots, {{"state", "busy"}}, busy);
    AddGauge(slots, {{"state", "idle"}}, static_cast<double>(slots_.size() - out_of_service_) - busy);
    AddGauge(slots, {{"state", "out_of_service"}}, static_cast<double>(out_of_service_));
  }
  std::vector<prometheus::MetricFamily> families = registry_.Collect();
  for (prometheus::MetricFamily* family : {&connected, &undelivered, &slots, &runs}) {
    if (!family->metric.empty()) families.push_back(std::move(*family));
  }
  return families;
}

}  // namespace attnfleet::worker
