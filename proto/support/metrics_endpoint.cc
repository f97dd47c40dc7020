#include "proto/support/metrics_endpoint.h"

#include <exception>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "proto/address.h"
#include "proto/spec.h"

namespace attnfleet {
namespace {

// Scrapes are rare and short. What comes beyond these waits in the queue, and then with the kernel.
constexpr char kThreads[] = "4";
constexpr char kQueuedConnections[] = "16";
// Of a connection that does not speak or does not read.
constexpr char kPatienceMs[] = "3000";

}  // namespace

absl::Status ReadMetricsAddress(std::string& address) {
  if (address == "off") address.clear();
  if (address.empty()) return absl::OkStatus();
  if (absl::StartsWith(address, "unix:")) {
    return absl::InvalidArgumentError("--metrics-listen: give HOST:PORT; Prometheus cannot scrape a Unix socket");
  }
  return ValidateAddress("--metrics-listen", address);
}

absl::StatusOr<std::unique_ptr<prometheus::Exposer>> ServeMetrics(
    const std::string& address, const std::vector<std::shared_ptr<prometheus::Collectable>>& collectables) {
  try {
    auto exposer = std::make_unique<prometheus::Exposer>(
        std::vector<std::string>{"listening_ports", address, "num_threads", kThreads, "connection_queue",
                                 kQueuedConnections, "request_timeout_ms", kPatienceMs});
    for (const auto& collectable : collectables) exposer->RegisterCollectable(collectable);
    return exposer;
  } catch (const std::exception&) {  // whose words name the library and no reason
    return absl::UnavailableError(absl::StrCat("--metrics-listen: cannot listen on ", address,
                                               ": the port is taken, or the address is none of this machine's"));
  }
}

prometheus::MetricFamily MakeGaugeFamily(const std::string& name, const std::string& help) {
  return {name, help, prometheus::MetricType::Gauge, {}};
}

void AddGauge(prometheus::MetricFamily& family, const std::vector<std::pair<std::string, std::string>>& labels,
              double value) {
  prometheus::ClientMetric& metric = family.metric.emplace_back();
  for (const auto& [name, text] : labels) metric.label.push_back({name, text});
  metric.gauge.value = value;
}

std::map<v1::Outcome, prometheus::Counter*> AddOutcomes(prometheus::Family<prometheus::Counter>& family) {
  std::map<v1::Outcome, prometheus::Counter*> counters;
  for (const v1::Outcome outcome : {v1::OUTCOME_MEASURED, v1::OUTCOME_OUT_OF_MEMORY, v1::OUTCOME_UNSUPPORTED,
                                    v1::OUTCOME_FAILED, v1::OUTCOME_CANCELLED}) {
    counters[outcome] = &family.Add({{"outcome", absl::StrReplaceAll(OutcomeName(outcome), {{" ", "_"}})}});
  }
  return counters;
}

}  // namespace attnfleet
