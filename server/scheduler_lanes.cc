#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "proto/spec.h"
#include "server/scheduler.h"

namespace attnfleet::server {

// Slots

// The run no longer holds its slot.
void Scheduler::ReleaseSlot(BenchmarkEntry& entry, const v1::Run& run) {
  Lane& lane = *entry.FindLane(entry.LaneOf(run.key()));
  queue_.SetBusy(*lane.slot, false);
  idle_.push_back(lane.slot);
  lane.active = false;
  queue_.AddRunning(*entry.submitter, -1);
  --CountsOf(counts_, entry).active;
}

void Scheduler::SetConnected(Worker& worker, bool connected) {
  const auto slots = static_cast<uint64_t>(worker.info.slots_size());
  if (worker.connected) {
    --counts_.workers_connected;
    counts_.slots -= slots;
  }
  worker.connected = connected;
  if (worker.connected) {
    ++counts_.workers_connected;
    counts_.slots += slots;
  }
  backends_known_ = false;
}

void Scheduler::UpdateSlots(Worker& worker) {
  for (auto& [id, slot] : worker.slots) {
    queue_.SetTakes(*slot, worker.connected && worker.accepts() && slot->offered);
    if (slot->takes) idle_.push_back(slot.get());
  }
}

// Lanes

BackendSet Scheduler::RunnableOn(const BenchmarkEntry& entry, const Slot& slot) {
  if (entry.every() || slot.kind == nullptr) return entry.all_backends();
  return slot.kind->OfferTo(entry.work_class());
}

void Scheduler::Bind(BenchmarkEntry& entry, uint32_t index, Slot& slot) {
  Lane& lane = entry.FindOrAddLane(index);
  lane.slot = &slot;
  slot.bound.insert({entry.id(), index});
  if (!entry.every()) AdmitLane(entry, index);
}

void Scheduler::AdmitLane(BenchmarkEntry& entry, uint32_t index) {
  Lane& lane = *entry.FindLane(index);
  lane.admitted = true;
  ++entry.admitted;
  entry.unbound.erase({lane.filed, index});
}

void Scheduler::Unbind(BenchmarkEntry& entry, uint32_t index) {
  Lane& lane = *entry.FindLane(index);
  lane.slot->bound.erase({entry.id(), index});
  if (lane.turn) lane.slot->waiting.erase(*lane.turn);
  lane.turn.reset();
  lane.slot = nullptr;
  lane.admitted = false;
  --entry.admitted;
  FileLane(entry, index);
  UpdateQueue(entry);
}

void Scheduler::FileLane(BenchmarkEntry& entry, uint32_t index) {
  Lane& lane = *entry.FindLane(index);
  entry.unbound.erase({lane.filed, index});
  lane.filed = entry.every() ? entry.first_need() : Need{entry.Wants(lane), lane.shuns};
  if (lane.filed.wanted == 0) return;  // all has ended, or its last run is on a slot
  entry.unbound.insert({lane.filed, index});
  const auto is_same = [&lane](const BenchmarkEntry::Filing& filing) { return filing.need == lane.filed; };
  if (std::any_of(entry.filings.begin(), entry.filings.end(), is_same)) return;
  entry.filings.push_back({lane.filed, queue_.UseClass(entry.Spec(), lane.filed)});
}

void Scheduler::UnbindAll(Worker& worker) {
  for (auto& [id, slot] : worker.slots) {
    const std::set<LaneKey> bound = slot->bound;
    for (const auto& [benchmark, index] : bound) {
      BenchmarkEntry& entry = *FindEntry(benchmark);
      if (!entry.every() && !entry.FindLane(index)->active) Unbind(entry, index);
    }
  }
}

void Scheduler::SettlePlace(BenchmarkEntry& entry, uint32_t index) {
  Lane& lane = *entry.FindLane(index);
  const Worker& worker = *lane.slot->worker;
  if (worker.away() && !lane.active) {
    entry.unbound.erase({lane.filed, index});
    if (std::exchange(lane.admitted, false)) --entry.admitted;
  } else if (worker.connected && !lane.admitted) {
    entry.unbound.insert({lane.filed, index});
  }
  UpdateTurn(entry, index);
  Admit(entry);
}

void Scheduler::SettlePlaces(Worker& worker) {
  for (const auto& [id, slot] : worker.slots) {
    for (const auto& [benchmark, index] : slot->bound) {
      BenchmarkEntry& entry = *FindEntry(benchmark);
      if (entry.every()) SettlePlace(entry, index);
    }
  }
}

void Scheduler::SettleLane(BenchmarkEntry& entry, uint32_t index) {
  Lane* lane = entry.FindLane(index);
  if (lane == nullptr) return;
  if (!lane->active && entry.Wants(*lane) == 0) {
    if (lane->turn) lane->slot->waiting.erase(*lane->turn);
    if (lane->slot != nullptr) lane->slot->bound.erase({entry.id(), index});
    if (lane->admitted) --entry.admitted;
    entry.unbound.erase({lane->filed, index});
    entry.EraseLane(index);
    UpdateQueue(entry);
  } else if (!entry.every() && !lane->active && lane->slot != nullptr &&
             (!lane->slot->worker->accepts() || (entry.Wants(*lane) & RunnableOn(entry, *lane->slot)) == 0)) {
    Unbind(entry, index);
  } else if (entry.every() && lane->slot != nullptr) {
    SettlePlace(entry, index);
  } else {
    UpdateTurn(entry, index);
  }
}

void Scheduler::EndWaiting(BenchmarkEntry& entry, uint32_t index, BackendSet of, const v1::RunResult& result,
                           int64_t now, Effects& effects) {
  Lane& lane = *entry.FindLane(index);
  std::vector<v1::RunKey> keys;
  for (uint32_t backend = 0; backend < entry.backends(); ++backend) {
    if (((of >> backend) & 1) == 0) continue;
    Lane::Runs& runs = lane.runs[backend];
    for (const uint32_t round : std::exchange(runs.returned, {})) keys.push_back(entry.KeyOf(index, round, backend));
    for (; runs.next < entry.lane_rounds(); ++runs.next) keys.push_back(entry.KeyOf(index, runs.next, backend));
  }
  for (const v1::RunKey& key : keys) EndRun(entry, entry.FindOrAddRun(key), result, now, effects);
}

void Scheduler::FailLane(BenchmarkEntry& entry, uint32_t index, const std::string& reason, int64_t now,
                         Effects& effects) {
  EndWaiting(entry, index, entry.all_backends(), MakeResult(v1::OUTCOME_FAILED, reason), now, effects);
}

void Scheduler::EndWhatNodeLacks(BenchmarkEntry& entry, uint32_t index, int64_t now, Effects& effects) {
  const Slot& slot = *entry.FindLane(index)->slot;
  const WorkClass& work_class = entry.work_class();
  const BackendSet lacks = entry.all_backends() & ~BackendsOn(work_class, *slot.kind);
  if (lacks == 0) return;
  const std::string reason =
      absl::StrCat(slot.worker->name(), " ", slot.info.id(), " has no backend ", BackendNames(work_class, lacks),
                   " on ", DeviceKindName(slot.info.device_kind()));
  EndWaiting(entry, index, lacks, MakeResult(v1::OUTCOME_UNSUPPORTED, reason), now, effects);
}

void Scheduler::EndWhatNoSlotOffers(int64_t now, Effects& effects) {
  if (!closed_) return;
  for (const auto& [id, entry] : benchmarks_) {
    if (!entry->over()) EndWhatNoSlotOffers(*entry, now, effects);
  }
}

std::vector<uint32_t> Scheduler::AllLanes(BenchmarkEntry& entry) {
  if (entry.every()) {
    if (!entry.placed()) entry.FindOrAddLane(0);  // the whole benchmark, as the one node's that it will never have
  } else {
    for (; entry.next_lane < entry.lane_count(); ++entry.next_lane) {
      entry.FindOrAddLane(entry.next_lane);
      FileLane(entry, entry.next_lane);
    }
  }
  std::vector<uint32_t> lanes;
  for (const auto& [index, lane] : entry.lanes()) lanes.push_back(index);
  return lanes;
}

void Scheduler::EndWhatNoSlotOffers(BenchmarkEntry& entry, int64_t now, Effects& effects) {
  if (counts_.workers_connected == 0) return;
  // Nobody else will come.
  const auto is_gone = [now](const auto& worker) { return worker.second->draining && !worker.second->awaited(now); };
  if (std::ranges::all_of(fleet_.workers(), is_gone)) {
    const v1::RunResult result =
        MakeResult(v1::OUTCOME_FAILED, "its worker takes no more runs: it stops, or a trainer of it cannot be killed");
    for (const uint32_t index : AllLanes(entry)) {
      if (entry.FindLane(index) != nullptr) EndWaiting(entry, index, entry.all_backends(), result, now, effects);
    }
    return;
  }
  const BackendSet offered = entry.work_class().offered();
  const BackendSet missing = entry.all_backends() & ~offered;
  if (missing == 0) return;
  // What a drained worker has will be there again.
  if (!std::ranges::all_of(fleet_.workers(), [](const auto& worker) { return worker.second->accepts(); })) return;
  if (entry.every() && (entry.placed() || offered != 0)) return;  // see EndWhatNodeLacks
  const std::vector<uint32_t> lanes = AllLanes(entry);
  for (uint32_t backend = 0; backend < entry.backends(); ++backend) {
    if (((missing >> backend) & 1) == 0) continue;
    const v1::RunResult result = MakeResult(v1::OUTCOME_UNSUPPORTED, ExplainMissing(entry.work_class(), backend));
    for (const uint32_t index : lanes) {
      if (entry.FindLane(index) != nullptr) EndWaiting(entry, index, BackendSet{1} << backend, result, now, effects);
    }
    if (entry.over()) return;
  }
  for (const auto& [index, lane] : entry.lanes()) {
    if (lane.slot == nullptr) FileLane(entry, index);
  }
  UpdateQueue(entry);
}

// Gives the lane its place among those that wait for its slot, or takes it away.
void Scheduler::UpdateTurn(BenchmarkEntry& entry, uint32_t index) {
  Lane& lane = *entry.FindLane(index);
  if (lane.turn) lane.slot->waiting.erase(*lane.turn);
  lane.turn.reset();
  if (lane.slot == nullptr || !lane.admitted || lane.active || entry.paused()) return;
  if ((entry.Wants(lane) & RunnableOn(entry, *lane.slot)) == 0) return;
  lane.turn = LaneTurn{entry.priority(), lane.started, lane.started ? 0 : entry.submitter->serial, {entry.id(), index}};
  lane.slot->waiting.insert(*lane.turn);
  idle_.push_back(lane.slot);
}

// Files the benchmark in the queue, or takes it out, as it has or has not a lane for any slot that fits.
void Scheduler::UpdateQueue(BenchmarkEntry& entry) {
  if (entry.every()) {
    if (entry.placed()) return Admit(entry);
    if (entry.over() || entry.paused()) {
      entry.work_class().unplaced.erase(entry.id());
    } else if (entry.work_class().unplaced.insert(entry.id()).second) {
      queue_.MarkChanged(entry.work_class());
    }
    return;
  }
  for (BenchmarkEntry::Filing& filing : entry.filings) {
    const bool wanted = !entry.over() && !entry.paused() && entry.HasLane(filing.need) && entry.MayAdmit();
    if (std::exchange(filing.queued, wanted) == wanted) continue;
    if (wanted) {
      queue_.Push(*filing.work_class, *entry.submitter, entry.priority(), entry.id());
    } else {
      queue_.Remove(*filing.work_class, *entry.submitter, entry.priority(), entry.id());
    }
  }
  std::erase_if(entry.filings, [&](const BenchmarkEntry::Filing& filing) {
    const bool is_empty = filing.need != entry.first_need() && !entry.HasLane(filing.need);
    if (is_empty) queue_.ReleaseClass(filing.work_class);
    return is_empty;
  });
}

// Lets as many nodes begin as max_slots allows, those first whose slot is idle.
void Scheduler::Admit(BenchmarkEntry& entry) {
  const auto is_idle = [&entry](const auto& unbound) {
    const Slot& slot = *entry.FindLane(unbound.second)->slot;
    return slot.takes && !slot.busy;
  };
  while (!entry.unbound.empty() && entry.MayAdmit()) {
    auto chosen = entry.unbound.begin();
    if (entry.max_slots() > 0) {
      const auto idle = std::find_if(entry.unbound.begin(), entry.unbound.end(), is_idle);
      if (idle != entry.unbound.end()) chosen = idle;
    }
    const uint32_t index = chosen->second;
    AdmitLane(entry, index);
    UpdateTurn(entry, index);
  }
}

void Scheduler::PlaceOnEverySlot(BenchmarkEntry& entry, int64_t now, Effects& effects) {
  // Also those that have less than others: what a node lacks is unsupported there.
  std::vector<Slot*> slots;
  for (const auto& [set, kinds] : entry.work_class().offers) {
    if (queue_.gathering() && set != entry.all_backends()) continue;
    for (const SlotKind* kind : kinds) slots.insert(slots.end(), kind->slots.begin(), kind->slots.end());
  }
  if (slots.empty()) return;
  std::sort(slots.begin(), slots.end(), BySerial());
  const uint64_t runs = uint64_t{entry.runs_total()} * slots.size();
  const auto timed_steps = static_cast<uint64_t>(entry.Spec().training().timed_steps());
  const auto refuse = [&](absl::string_view bound) {
    CancelEntry(entry,
                absl::StrCat("placement every: ", slots.size(), " slots fit, which makes ", runs, " runs", bound,
                             " are possible in one benchmark"),
                now, effects);
  };
  if (runs > kMaxRuns) return refuse(absl::StrCat("; at most ", kMaxRuns));
  if (runs * timed_steps > kMaxTimedSteps) {
    return refuse(absl::StrCat(" of ", timed_steps, " timed steps; at most ", kMaxTimedSteps, " steps"));
  }
  std::vector<v1::Node> nodes;
  for (const Slot* slot : slots) {
    v1::Node& node = nodes.emplace_back();
    node.set_worker(slot->worker->name());
    node.set_slot(slot->info.id());
    node.set_device_name(slot->info.device_name());
  }
  CountsOf(counts_, entry).queued -= entry.runs_total();
  entry.SetNodes(nodes);
  CountsOf(counts_, entry).queued += entry.runs_total();
  entry.work_class().unplaced.erase(entry.id());
  for (uint32_t index = 0; index < slots.size(); ++index) {
    Bind(entry, index, *slots[index]);
    FileLane(entry, index);
  }
  for (uint32_t index = 0; index < slots.size(); ++index) EndWhatNodeLacks(entry, index, now, effects);
  effects.benchmarks.insert(entry.id());
  effects.placed.insert(entry.id());
  Admit(entry);
}

// Scheduling

void Scheduler::EndGathering() {
  queue_.SetGathering(false);
  if (!std::exchange(fleet_returns_, false)) return;
  for (const auto& [id, entry] : benchmarks_) {
    if (entry->every() && !entry->over() && !entry->placed()) queue_.MarkChanged(entry->work_class());
  }
}

void Scheduler::Schedule(int64_t now, Effects& effects) {
  TakeOverdue(now, effects);
  if (now > gathers_until_) EndGathering();
  std::set<uint64_t> to_place;
  for (const WorkClass* work_class : queue_.changed()) {
    if (work_class->open() && !fleet_returns_)
      to_place.insert(work_class->unplaced.begin(), work_class->unplaced.end());
  }
  for (const uint64_t id : to_place) PlaceOnEverySlot(*FindEntry(id), now, effects);

  std::vector<Slot*> idle;
  idle.swap(idle_);
  for (Slot* slot : idle) FillSlot(*slot, now, effects);
  idle_.clear();  // StartLane only takes slots

  // What is idle still fits nothing but what is new.
  std::vector<WorkClass*>& changed = queue_.changed();
  for (;;) {
    WorkQueue::Candidate best;
    std::erase_if(changed, [&best](WorkClass* work_class) {
      const WorkQueue::Candidate candidate = WorkQueue::BestOf(*work_class);
      const bool done = candidate.work_class == nullptr || WorkQueue::FindIdle(*work_class, "") == nullptr;
      if (done) {
        work_class->changed = false;
      } else if (best.work_class == nullptr || candidate.rank < best.rank) {
        best = candidate;
      }
      return done;
    });
    if (best.work_class == nullptr) return;
    StartLane(best, *WorkQueue::FindIdle(*best.work_class, ""), now, effects);
  }
}

Rank Scheduler::RankOf(const LaneTurn& turn) const {
  const Submitter& submitter = *FindEntry(turn.lane.first)->submitter;
  return {turn.priority, submitter.running, submitter.served, turn.lane.first, 0};
}

// Looks at the oldest lane of each submitter that waits for the slot.
std::optional<LaneTurn> Scheduler::FirstTurn(const Slot& slot) const {
  if (slot.waiting.empty()) return std::nullopt;
  LaneTurn first = *slot.waiting.begin();
  if (first.started) return first;
  for (LaneTurn turn = first;;) {
    turn.lane = {UINT64_MAX, UINT32_MAX};
    const auto next = slot.waiting.upper_bound(turn);
    if (next == slot.waiting.end() || next->priority != first.priority) return first;
    turn = *next;
    if (RankOf(turn) < RankOf(first)) first = turn;
  }
}

void Scheduler::FillSlot(Slot& slot, int64_t now, Effects& effects) {
  while (slot.takes && !slot.busy) {
    const WorkQueue::Candidate best = queue_.Best(slot);
    const std::optional<LaneTurn> turn = FirstTurn(slot);
    bool take_turn = turn.has_value();
    if (take_turn && best.work_class != nullptr) {
      take_turn = turn->priority == best.rank.priority && turn->started ? true : RankOf(*turn) < best.rank;
    }
    if (take_turn) {
      BenchmarkEntry& entry = *FindEntry(turn->lane.first);
      if (!turn->started) queue_.Serve(*entry.submitter);
      Assign(entry, turn->lane.second, slot, now, effects);
    } else if (best.work_class != nullptr) {
      StartLane(best, slot, now, effects);
    } else {
      return;
    }
  }
}

// A lane that was not lost with this worker, if there is one.
uint32_t Scheduler::PickLane(const BenchmarkEntry& entry, const Need& need, const std::string& worker) {
  const auto first = entry.unbound.lower_bound({need, 0});
  for (auto it = first; it != entry.unbound.end() && it->first == need; ++it) {
    if (entry.FindLane(it->second)->avoid != worker) return it->second;
  }
  const bool may_begin = need == entry.first_need() && entry.next_lane < entry.lane_count();
  return may_begin ? entry.next_lane : first->second;
}

void Scheduler::StartLane(const WorkQueue::Candidate& candidate, Slot& offered, int64_t now, Effects& effects) {
  BenchmarkEntry& entry = *FindEntry(candidate.rank.benchmark);
  Slot* slot = &offered;
  const uint32_t index = PickLane(entry, candidate.work_class->need, slot->worker->name());
  const Lane* lane = entry.FindLane(index);
  if (lane != nullptr && lane->avoid == slot->worker->name()) {
    Slot* other = WorkQueue::FindIdle(*candidate.work_class, lane->avoid);
    // Unless something better waits for it.
    const WorkQueue::Candidate best = queue_.Best(*other);
    const bool same = best.work_class == candidate.work_class && best.rank.benchmark == entry.id();
    if (other->waiting.empty() && same) slot = other;
  }
  if (index == entry.next_lane) ++entry.next_lane;
  Bind(entry, index, *slot);
  queue_.Serve(*entry.submitter);
  Assign(entry, index, *slot, now, effects);
  UpdateQueue(entry);
}

void Scheduler::Assign(BenchmarkEntry& entry, uint32_t index, Slot& slot, int64_t now, Effects& effects) {
  Lane& lane = *entry.FindLane(index);
  const v1::RunKey key = entry.TakeRun(index, RunnableOn(entry, slot));
  lane.active = true;
  lane.started = true;
  UpdateTurn(entry, index);
  v1::Run& run = entry.FindOrAddRun(key);
  run.set_state(v1::RUN_STATE_ASSIGNED);
  run.set_attempt(run.attempt() + 1);
  run.set_worker(slot.worker->name());
  run.set_slot(slot.info.id());
  run.set_started_unix_ms(now);
  queue_.SetBusy(slot, true);
  slot.run = run.key();
  queue_.AddRunning(*entry.submitter, 1);
  entry.RunBecameActive();
  --CountsOf(counts_, entry).queued;
  ++CountsOf(counts_, entry).active;
  if (entry.state() == v1::BENCHMARK_STATE_QUEUED) {
    entry.SetState(v1::BENCHMARK_STATE_RUNNING);
    effects.benchmarks.insert(entry.id());
  }
  effects.runs.insert({entry.id(), run.key().job_index(), run.key().repetition()});
  effects.assign.push_back({run.worker(), MakeStartRun(entry.Spec(), run.key(), run.attempt(), run.slot())});
}

}  // namespace attnfleet::server
