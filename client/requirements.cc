#include "client/requirements.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/worker_state.h"
#include "proto/spec.h"

namespace attnfleet::client {
namespace {

bool HasLabels(const v1::WorkerInfo& worker, const v1::SlotRequirements& requirements) {
  for (const auto& [name, value] : requirements.labels()) {
    const auto found = worker.labels().find(name);
    if (found == worker.labels().end() || found->second != value) return false;
  }
  return true;
}

// The field that no slot meets, taken alone; slots that meet each but not all are too rare to tell apart.
std::string UnmetField(const v1::SlotRequirements& requirements, const v1::WorkerInfo& worker, const v1::Slot& slot) {
  const v1::DeviceKind kind = requirements.device_kind();
  if (kind != v1::DEVICE_KIND_UNSPECIFIED && slot.device_kind() != kind) return "requirements.device_kind";
  if (!absl::StrContains(slot.device_name(), requirements.device_name_contains())) {
    return "requirements.device_name_contains";
  }
  if (slot.memory_bytes() < requirements.min_memory_bytes()) return "requirements.min_memory_bytes";
  return HasLabels(worker, requirements) ? "" : "requirements.labels";
}

}  // namespace

absl::Status CheckRequirements(const v1::SlotRequirements& requirements, const v1::ListWorkersResponse& fleet) {
  std::string unmet = "requirements.device_kind";
  int fitting = 0;
  std::vector<std::string> offers;
  for (const v1::WorkerStatus& worker : fleet.workers()) {
    for (const v1::Slot& slot : worker.info().slots()) {
      unmet = UnmetField(requirements, worker.info(), slot);
      if (unmet.empty() && ++fitting >= requirements.count()) return absl::OkStatus();
      offers.push_back(absl::StrFormat("%s (%s, %.1f GB)", slot.device_name(), DeviceKindName(slot.device_kind()),
                                       static_cast<double>(slot.memory_bytes()) / 1e9));
    }
  }
  if (fitting > 0) {
    return absl::InvalidArgumentError(absl::StrCat("requirements.count: ", requirements.count(),
                                                   " slots are asked for; ", fitting, " of this machine fit"));
  }
  return absl::InvalidArgumentError(absl::StrCat(unmet, ": nothing here is like that; this machine offers ",
                                                 offers.empty() ? "nothing" : absl::StrJoin(offers, ", ")));
}

std::vector<std::string> LeftOut(const v1::SlotRequirements& requirements, const v1::ListWorkersResponse& fleet) {
  std::vector<std::string> result;
  bool starts = false;
  for (const v1::WorkerStatus& worker : fleet.workers()) {
    const auto& slots = worker.info().slots();
    const bool fits = slots.empty() || std::any_of(slots.begin(), slots.end(), [&](const v1::Slot& slot) {
                        return UnmetField(requirements, worker.info(), slot).empty();
                      });
    if (!fits) continue;
    if (worker.connected() && !worker.drained() && !worker.draining()) {
      starts = true;
    } else {
      result.push_back(absl::StrCat(worker.info().name(), " (", WorkerState(worker), ")"));
    }
  }
  return starts ? result : std::vector<std::string>();
}

absl::Status CheckStep(const v1::BenchmarkSpec& spec, const v1::ListWorkersResponse& fleet) {
  bool any = false;
  for (const v1::WorkerStatus& worker : fleet.workers()) {
    for (const v1::Slot& slot : worker.info().slots()) {
      if (!UnmetField(spec.requirements(), worker.info(), slot).empty()) continue;
      if (slot.device_kind() != v1::DEVICE_KIND_CPU) return absl::OkStatus();
      any = true;
    }
  }
  return any ? CheckStepOnCpu(spec.training()) : absl::OkStatus();
}

}  // namespace attnfleet::client
