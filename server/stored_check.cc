#include "server/stored_check.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/spec.h"
#include "server/benchmark_entry.h"

namespace attnfleet::server {
namespace {

absl::Status Damaged(const std::string& what, const std::string& why) {
  return absl::DataLossError(absl::StrCat(what, " is damaged: ", why));
}

// "" if `run` is as some coordinator may have saved it.
std::string Fault(const v1::Run& run) {
  switch (run.state()) {
    case v1::RUN_STATE_QUEUED:
      return "";
    case v1::RUN_STATE_ASSIGNED:
    case v1::RUN_STATE_RUNNING:
      return run.worker().empty() || run.slot().empty() || run.attempt() == 0 ? "it is active, but nowhere" : "";
    case v1::RUN_STATE_ENDED:
      return run.result().outcome() == v1::OUTCOME_UNSPECIFIED || !v1::Outcome_IsValid(run.result().outcome())
                 ? "it has ended without an outcome"
                 : "";
    default:
      return absl::StrCat("there is no state ", static_cast<int>(run.state()));
  }
}

}  // namespace

absl::Status CheckStoredSpec(const v1::Benchmark& head) {
  const v1::BenchmarkSpec& spec = head.spec();
  const std::string name = absl::StrCat("benchmark ", head.id());
  if (!head.nodes().empty() && spec.placement() != v1::PLACEMENT_EVERY) {
    return Damaged(name, "it has nodes, but not that placement");
  }
  if (spec.backends_size() > kMaxBackends && !IsOver(head.state())) {
    return Damaged(name, absl::StrCat("its spec has ", spec.backends_size(), " backends"));
  }
  const int64_t cells = int64_t{spec.backends_size()} * spec.shapes_size();
  const int64_t nodes = std::max(1, head.nodes_size());
  if (cells >= 1 && cells <= kMaxRuns && spec.repetitions() >= 1 && cells * spec.repetitions() <= kMaxRuns / nodes) {
    return absl::OkStatus();
  }
  return Damaged(name, absl::StrCat("its spec has no runs, or more than ", kMaxRuns));
}

absl::Status CheckStored(const std::vector<v1::Benchmark>& stored) {
  BusySlots busy;
  for (const v1::Benchmark& benchmark : stored) {
    if (absl::Status status = CheckStored(benchmark, busy); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckStored(const v1::Benchmark& benchmark, BusySlots& busy) {
  const std::string name = absl::StrCat("benchmark ", benchmark.id());
  if (benchmark.id() == 0 || benchmark.id() > uint64_t{std::numeric_limits<int64_t>::max()} - 1) {
    return Damaged(name, "no benchmark has this number");
  }
  uint32_t runs = 0;
  uint32_t ended = 0;
  std::set<uint32_t> active_groups;
  for (const v1::Job& job : benchmark.jobs()) {
    for (const v1::Run& run : job.runs()) {
      const auto damaged = [&run](const std::string& why) {
        return Damaged(absl::StrCat("run ", FormatRunKey(run.key())), why);
      };
      if (const std::string fault = Fault(run); !fault.empty()) return damaged(fault);
      ++runs;
      if (run.state() == v1::RUN_STATE_ENDED) ++ended;
      if (run.state() != v1::RUN_STATE_ASSIGNED && run.state() != v1::RUN_STATE_RUNNING) continue;
      if (!busy.emplace(run.worker(), run.slot()).second) return damaged("another run is on its slot");
      if (job.has_node() && (run.worker() != job.node().worker() || run.slot() != job.node().slot())) {
        return damaged("it is active elsewhere than on its node");
      }
      if (!active_groups.insert(job.group()).second) {
        return damaged("another run of its shape is active too");
      }
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
