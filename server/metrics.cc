#include "server/metrics.h"

#include <exception>

#include "absl/strings/str_cat.h"
#include "proto/spec.h"

namespace attnfleet::server {
namespace {

prometheus::Gauge& MakeGauge(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
}

prometheus::Histogram& MakeHistogram(prometheus::Registry& registry, const char* name, const char* help,
                                     prometheus::Histogram::BucketBoundaries bounds) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, std::move(bounds));
}

}  // namespace

Metrics::Metrics()
    : registry_(std::make_shared<prometheus::Registry>()),
      runs_queued_(MakeGauge(*registry_, "attnfleet_runs_queued", "Runs that wait for a slot.")),
      runs_active_(MakeGauge(*registry_, "attnfleet_runs_active", "Runs that are on a slot.")),
      workers_connected_(MakeGauge(*registry_, "attnfleet_workers_connected", "Workers with an open stream.")),
      slots_(MakeGauge(*registry_, "attnfleet_slots", "Slots of the connected workers.")),
      save_seconds_(MakeHistogram(*registry_, "attnfleet_store_save_seconds", "Duration of a commit to the store.",
                                  {0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5})),
      batch_events_(MakeHistogram(*registry_, "attnfleet_batch_events", "Events that one commit served.",
                                  {1, 2, 5, 10, 50, 100, 500, 1000, 10000})) {
  auto& ended = prometheus::BuildCounter()
                    .Name("attnfleet_runs_ended_total")
                    .Help("Runs that ended since the coordinator started, by outcome.")
                    .Register(*registry_);
  for (const v1::Outcome outcome : {v1::OUTCOME_MEASURED, v1::OUTCOME_OUT_OF_MEMORY, v1::OUTCOME_UNSUPPORTED,
                                    v1::OUTCOME_FAILED, v1::OUTCOME_CANCELLED}) {
    std::string label = OutcomeName(outcome);
    for (char& c : label) c = c == ' ' ? '_' : c;
    runs_ended_[outcome] = &ended.Add({{"outcome", label}});
  }
}

absl::Status Metrics::Serve(const std::string& address) {
  try {
    exposer_ = std::make_unique<prometheus::Exposer>(address, 2);
  } catch (const std::exception& error) {  // thrown for a port that is taken
    return absl::UnavailableError(absl::StrCat("--metrics-listen: cannot serve on ", address, ": ", error.what()));
  }
  exposer_->RegisterCollectable(registry_);
  return absl::OkStatus();
}

void Metrics::Observe(const BatchReport& report) {
  runs_queued_.Set(static_cast<double>(report.counts.queued));
  runs_active_.Set(static_cast<double>(report.counts.active));
  workers_connected_.Set(static_cast<double>(report.counts.workers_connected));
  slots_.Set(static_cast<double>(report.counts.slots));
  for (const auto& [outcome, count] : report.ended) {
    if (const auto found = runs_ended_.find(outcome); found != runs_ended_.end()) found->second->Increment(count);
  }
  if (report.events == 0) return;
  save_seconds_.Observe(report.save_seconds);
  batch_events_.Observe(static_cast<double>(report.events));
}

}  // namespace attnfleet::server
