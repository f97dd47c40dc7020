#include "server/stored_check.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/spec.h"

namespace attnfleet::server {
namespace {

absl::Status Damaged(const std::string& what, const std::string& why) {
  return absl::DataLossError(absl::StrCat(what, " is damaged: ", why));
}

}  // namespace

std::string SpecFault(const v1::Benchmark& head) {
  if (head.id() == 0 || head.id() > uint64_t{std::numeric_limits<int64_t>::max()} - 1) {
    return "no benchmark has this number";
  }
  const v1::BenchmarkSpec& spec = head.spec();
  if (!head.nodes().empty() && spec.placement() != v1::PLACEMENT_EVERY) return "it has nodes, but not that placement";
  if (spec.backends_size() > kMaxBackends && !IsOver(head.state())) {
    return absl::StrCat("its spec has ", spec.backends_size(), " backends");
  }
  const int64_t cells = int64_t{spec.backends_size()} * spec.shapes_size();
  const int64_t nodes = std::max(1, head.nodes_size());
  if (cells >= 1 && cells <= kMaxRuns && spec.repetitions() >= 1 && cells * spec.repetitions() <= kMaxRuns / nodes) {
    return "";
  }
  return absl::StrCat("its spec has no runs, or more than ", kMaxRuns);
}

absl::Status CheckStoredSpec(const v1::Benchmark& head) {
  const std::string fault = SpecFault(head);
  return fault.empty() ? absl::OkStatus() : Damaged(absl::StrCat("benchmark ", head.id()), fault);
}

std::string RunFault(const v1::Run& run, const v1::Node* node, uint32_t group, BusySlots& busy,
                     std::set<uint32_t>& active_groups) {
  switch (run.state()) {
    case v1::RUN_STATE_QUEUED:
      return "";
    case v1::RUN_STATE_ASSIGNED:
    case v1::RUN_STATE_RUNNING:
      break;
    case v1::RUN_STATE_ENDED:
      return run.result().outcome() == v1::OUTCOME_UNSPECIFIED || !v1::Outcome_IsValid(run.result().outcome())
                 ? "it has ended without an outcome"
                 : "";
    default:
      return absl::StrCat("there is no state ", static_cast<int>(run.state()));
  }
  if (run.worker().empty() || run.slot().empty() || run.attempt() == 0) return "it is active, but nowhere";
  if (!busy.emplace(run.worker(), run.slot()).second) return "another run is on its slot";
  if (node != nullptr && (run.worker() != node->worker() || run.slot() != node->slot())) {
    return "it is active elsewhere than on its node";
  }
  return active_groups.insert(group).second ? "" : "another run of its shape is active too";
}

absl::Status CheckStored(const v1::Benchmark& benchmark, BusySlots& busy) {
  const std::string name = absl::StrCat("benchmark ", benchmark.id());
  uint32_t runs = 0;
  uint32_t ended = 0;
  std::set<uint32_t> active_groups;
  for (const v1::Job& job : benchmark.jobs()) {
    for (const v1::Run& run : job.runs()) {
      const std::string fault = RunFault(run, job.has_node() ? &job.node() : nullptr, job.group(), busy, active_groups);
      if (!fault.empty()) return Damaged(absl::StrCat("run ", FormatRunKey(run.key())), fault);
      ++runs;
      if (run.state() == v1::RUN_STATE_ENDED) ++ended;
    }
  }
  const bool over = IsOver(benchmark.state());
  if (runs != benchmark.runs_total()) {
    return Damaged(name, absl::StrCat("it says ", benchmark.runs_total(), " runs, its spec makes ", runs));
  }
  if (ended != benchmark.runs_ended()) return Damaged(name, "a run is stored twice");
  if (over != (ended == runs)) {
    return Damaged(name, over ? "it is over, but not all its runs" : "all its runs have ended, but not itself");
  }
  return absl::OkStatus();
}

}  // namespace attnfleet::server
