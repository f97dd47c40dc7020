#ifndef ATTNFLEET_PROTO_SUPPORT_METRICS_ENDPOINT_H_
#define ATTNFLEET_PROTO_SUPPORT_METRICS_ENDPOINT_H_

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/family.h>
#include <prometheus/metric_family.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnfleet/v1/trainer.pb.h"

namespace attnfleet {

// Checks --metrics-listen: "off" becomes "", which is possible too; else HOST:PORT. INVALID_ARGUMENT names the flag.
absl::Status ReadMetricsAddress(std::string& address);

// Serves /metrics on HOST:PORT for Prometheus until it is destroyed, from four threads of its own; a connection
// that is silent for 3 s is closed. It does not keep the collectables alive. UNAVAILABLE names the flag and the
// address.
absl::StatusOr<std::unique_ptr<prometheus::Exposer>> ServeMetrics(
    const std::string& address, const std::vector<std::shared_ptr<prometheus::Collectable>>& collectables);

// A family of gauges, and one more sample of it; for collectables that look only when they are asked.
prometheus::MetricFamily MakeGaugeFamily(const std::string& name, const std::string& help);
void AddGauge(prometheus::MetricFamily& family, const std::vector<std::pair<std::string, std::string>>& labels,
              double value);

// A counter for each outcome of a run, labelled with it: outcome="out_of_memory".
std::map<v1::Outcome, prometheus::Counter*> AddOutcomes(prometheus::Family<prometheus::Counter>& family);

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_SUPPORT_METRICS_ENDPOINT_H_
