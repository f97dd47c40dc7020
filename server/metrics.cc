#include "server/metrics.h"

#include <utility>

#include "proto/support/metrics_endpoint.h"

namespace attnfleet::server {
namespace {

using Bounds = prometheus::Histogram::BucketBoundaries;

prometheus::Histogram& MakeHistogram(prometheus::Registry& registry, const char* name, const char* help,
                                     Bounds bounds) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, std::move(bounds));
}

}  // namespace

Metrics::Metrics()
    : registry_(std::make_shared<prometheus::Registry>()),
      results_(std::make_shared<ResultMetrics>()),
      rpcs_(*registry_),
      leads_(prometheus::BuildGauge()
                 .Name("attnfleet_leads")
                 .Help("1 if this server leads, as one with a store of its own always does; 0 on standby.")
                 .Register(*registry_)
                 .Add({})),
      queue_seconds_(MakeHistogram(*registry_, "attnfleet_run_queue_seconds",
                                   "From a run's submit, or its failed attempt before, to its assignment to a slot.",
                                   Bounds{0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400})),
      save_seconds_(MakeHistogram(*registry_, "attnfleet_store_save_seconds", "Duration of a commit to the store.",
                                  Bounds{0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5})),
      save_failures_(prometheus::BuildCounter()
                         .Name("attnfleet_store_save_failures_total")
                         .Help("Commits to the store that failed; nothing is assigned until one succeeds.")
                         .Register(*registry_)
                         .Add({})),
      batch_events_(MakeHistogram(*registry_, "attnfleet_batch_events", "Events that one commit served.",
                                  Bounds{1, 2, 5, 10, 50, 100, 500, 1000, 10000})),
      runs_ended_(AddOutcomes(prometheus::BuildCounter()
                                  .Name("attnfleet_runs_ended_total")
                                  .Help("Runs that ended since the coordinator started, by outcome.")
                                  .Register(*registry_))) {}

void Metrics::Observe(const BatchReport& report) {
  for (const auto& [outcome, count] : report.ended) {
    if (const auto found = runs_ended_.find(outcome); found != runs_ended_.end()) found->second->Increment(count);
  }
  for (const double seconds : report.queue_seconds) queue_seconds_.Observe(seconds);
  if (report.save_failed) save_failures_.Increment();
  if (report.save_seconds) save_seconds_.Observe(*report.save_seconds);
  if (report.events > 0) batch_events_.Observe(static_cast<double>(report.events));
}

}  // namespace attnfleet::server
