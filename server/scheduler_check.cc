#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/spec.h"
#include "server/scheduler.h"

namespace attnfleet::server {
namespace {

bool SameKey(const v1::RunKey& a, const v1::RunKey& b) {
  return a.benchmark_id() == b.benchmark_id() && a.job_index() == b.job_index() && a.repetition() == b.repetition();
}

// What must hold of a run that was ever assigned.
absl::Status CheckRun(const BenchmarkEntry& entry, const v1::Run& run) {
  const std::string name = FormatRunKey(run.key());
  const auto wrong = [&entry](const auto&... parts) {
    return absl::InternalError(absl::StrCat("benchmark ", entry.id(), ": ", parts...));
  };
  if (run.state() == v1::RUN_STATE_ENDED) {
    if (run.result().outcome() == v1::OUTCOME_UNSPECIFIED) return wrong(name, " has no result");
    return absl::OkStatus();
  }
  if (entry.over()) return wrong("is over while ", name, " is not");
  const uint32_t index = entry.LaneOf(run.key());
  const uint32_t round = entry.RoundOf(run.key());
  const uint32_t backend = entry.BackendOf(run.key());
  if (!SameKey(entry.KeyOf(index, round, backend), run.key())) return wrong(name, " is not where its lane says");
  const Lane* lane = entry.FindLane(index);
  if (lane == nullptr) return wrong(name, " is in no lane");
  if (!IsActive(run)) {
    return lane->runs[backend].returned.contains(round) ? absl::OkStatus() : wrong(name, " waits and is lost");
  }
  const Slot* slot = lane->slot;
  if (!lane->active || slot == nullptr || !slot->busy || !SameKey(slot->run, run.key())) {
    return wrong(name, " is on a slot that does not hold it");
  }
  if (slot->worker->name() != run.worker() || slot->info.id() != run.slot()) return wrong(name, " is elsewhere");
  return absl::OkStatus();
}

}  // namespace

absl::Status Scheduler::CheckBenchmark(uint64_t id) const {
  const BenchmarkEntry& entry = *FindEntry(id);
  const auto wrong = [id](const auto&... parts) {
    return absl::InternalError(absl::StrCat("benchmark ", id, ": ", parts...));
  };
  uint32_t ended = 0;
  uint32_t active = 0;
  absl::Status status;
  entry.ForEachRun([&](const v1::Run& run) {
    if (status.ok()) status = CheckRun(entry, run);
    ended += run.state() == v1::RUN_STATE_ENDED ? 1 : 0;
    active += IsActive(run) ? 1 : 0;
  });
  if (!status.ok()) return status;
  if (entry.over()) {
    if (!entry.lanes().empty() || !entry.filings.empty()) return wrong("is over and still filed");
    if (entry.state() == v1::BENCHMARK_STATE_FINISHED && !entry.forgot_runs() && ended != entry.runs_total())
      return wrong("ended too early");
    return absl::OkStatus();
  }
  if (ended != entry.runs_ended() || ended == entry.runs_total()) return wrong("runs_ended is wrong");
  if (active != entry.runs_active()) return wrong("runs_active is wrong");

  uint32_t waiting = 0;
  uint32_t admitted = 0;
  for (const auto& [index, lane] : entry.lanes()) {
    for (const Lane::Runs& runs : lane.runs) {
      waiting += entry.lane_rounds() - runs.next + static_cast<uint32_t>(runs.returned.size());
    }
    admitted += lane.admitted ? 1 : 0;
    const BackendSet wants = entry.Wants(lane);
    if (!lane.active && wants == 0) return wrong("lane ", index, " has nothing left");
    if (lane.slot != nullptr && !lane.slot->bound.contains({id, index})) return wrong("lane ", index, " is not bound");
    const Need filed = entry.every() ? entry.first_need() : Need{wants, lane.shuns};
    const bool waits = entry.unbound.contains({filed, index});
    const Worker* node = entry.every() && lane.slot != nullptr ? lane.slot->worker : nullptr;
    if (waits && lane.admitted) return wrong("lane ", index, " is admitted and not");
    if (!waits && !lane.admitted && (node == nullptr || (node->connected && !node->away())))
      return wrong("lane ", index, " is neither admitted nor waits to be");
    if ((waits || lane.admitted) && node != nullptr && node->away() && !lane.active)
      return wrong("lane ", index, " has a place or waits for one while its worker is away");
    if (!entry.every() && lane.admitted == (lane.slot == nullptr)) return wrong("lane ", index, " has lost its slot");
    const BackendSet runnable = lane.slot == nullptr ? 0 : wants & RunnableOn(entry, *lane.slot);
    if (lane.slot != nullptr && !lane.active && runnable == 0)
      return wrong("lane ", index, " has nothing for its slot");
    const bool ready = runnable != 0 && lane.admitted && !lane.active && !entry.paused();
    if (lane.turn.has_value() != ready) return wrong("lane ", index, " waits for no turn, or for nothing");
    if (lane.turn && !lane.slot->waiting.contains(*lane.turn)) return wrong("lane ", index, " has lost its turn");
    if (lane.turn && lane.turn->submitter != (lane.started ? 0 : entry.submitter->serial))
      return wrong("lane ", index, " waits as another submitter's");
  }
  if (!entry.every()) waiting += (entry.lane_count() - entry.next_lane) * entry.lane_rounds() * entry.backends();
  if (entry.every() && !entry.placed()) waiting = entry.runs_total();
  if (waiting != entry.runs_waiting()) return wrong("has lost a waiting run");
  if (admitted != entry.admitted) return wrong("admitted is wrong");
  if (entry.max_slots() > 0 && admitted > entry.max_slots()) return wrong("holds more slots than its max_slots");
  const bool allowed = entry.MayAdmit();
  if (entry.placed() && !entry.unbound.empty() && allowed) return wrong("has a place that no node takes");
  for (const BenchmarkEntry::Filing& filing : entry.filings) {
    const bool has_lane = !entry.every() && entry.HasLane(filing.need);
    if (filing.queued != (has_lane && allowed && !entry.paused())) return wrong("waits in no queue, or for nothing");
    if (!has_lane && &filing != &entry.filings.front()) return wrong("is filed for nothing");
  }
  for (const auto& [need, index] : entry.unbound) {
    const auto is_same = [&need = need](const BenchmarkEntry::Filing& filing) { return filing.need == need; };
    if (std::none_of(entry.filings.begin(), entry.filings.end(), is_same))
      return wrong("lane ", index, " is not filed");
  }
  if (entry.every() && !entry.placed() && entry.work_class().unplaced.contains(id) == entry.paused()) {
    return wrong("waits for no nodes");
  }
  return absl::OkStatus();
}

absl::Status Scheduler::CheckWorker(const std::string& name) const {
  const Worker* worker = fleet_.Find(name);
  if (worker == nullptr) return absl::OkStatus();
  for (const auto& [id, slot] : worker->slots) {
    const auto wrong = [&name, &slot_id = id](const auto&... parts) {
      return absl::InternalError(absl::StrCat("slot ", name, " ", slot_id, ": ", parts...));
    };
    if (slot->busy) {
      const v1::Run* run = FindRun(slot->run);
      if (run == nullptr || !IsActive(*run) || run->worker() != name || run->slot() != id) {
        return wrong("holds ", FormatRunKey(slot->run), ", which is not there");
      }
    }
    const bool takes = worker->connected && worker->accepts() && slot->offered;
    if (takes != slot->takes) return wrong("takes runs and is not filed so, or the reverse");
    if (takes && slot->kind == nullptr) return wrong("is not of the fleet");
    if ((worker->lost || !slot->offered || worker->drained) && slot->kind != nullptr) {
      return wrong("is still of the fleet");
    }
    if (takes && !slot->busy && !slot->waiting.empty()) return wrong("is idle while a lane waits for it");
    for (const LaneTurn& turn : slot->waiting) {
      if (!slot->bound.contains(turn.lane)) return wrong("a lane waits that is not bound");
    }
    for (const auto& [benchmark, index] : slot->bound) {
      const BenchmarkEntry* entry = FindEntry(benchmark);
      const Lane* lane = entry == nullptr ? nullptr : entry->FindLane(index);
      if (lane == nullptr || lane->slot != slot.get()) return wrong("a lane is bound that knows nothing of it");
      if (!worker->accepts() && !entry->every() && !lane->active) return wrong("a lane waits for a drained worker");
    }
  }
  return absl::OkStatus();
}

absl::Status Scheduler::CheckInvariants() const {
  Counts counts;
  std::map<const Submitter*, uint64_t> running;
  for (const auto& [id, entry] : benchmarks_) {
    if (absl::Status status = CheckBenchmark(id); !status.ok()) return status;
    if (entry->over()) continue;
    CountsOf(counts, *entry).queued += entry->runs_waiting();
    CountsOf(counts, *entry).active += entry->runs_active();
    running[entry->submitter] += entry->runs_active();
  }
  for (const auto& [submitter, slots] : running) {
    if (submitter->running != slots)
      return absl::InternalError("the slots of " + submitter->name + " are counted wrong");
  }
  uint64_t busy = 0;
  for (const auto& [name, worker] : fleet_.workers()) {
    if (absl::Status status = CheckWorker(name); !status.ok()) return status;
    for (const auto& [id, slot] : worker->slots) busy += slot->busy ? 1 : 0;
    if (!worker->connected) continue;
    ++counts.workers_connected;
    counts.slots += static_cast<uint64_t>(worker->info.slots_size());
  }
  if (busy != counts.active()) return absl::InternalError("a slot holds a run that is not active");
  if (counts != counts_) return absl::InternalError("the totals are wrong");
  return queue_.Check();
}

}  // namespace attnfleet::server
