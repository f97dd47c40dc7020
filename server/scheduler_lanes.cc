#include <algorithm>

#include "absl/strings/str_cat.h"
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
  UpdateSlots(worker);
}

void Scheduler::UpdateSlots(Worker& worker) {
  for (auto& [id, slot] : worker.slots) {
    if (worker.connected && worker.accepts() && slot->offered) {
      queue_.AddSlot(*slot);
      idle_.push_back(slot.get());
    } else {
      queue_.RemoveSlot(*slot);
    }
  }
}

// Lanes

void Scheduler::Bind(BenchmarkEntry& entry, uint32_t index, Slot& slot) {
  Lane& lane = entry.FindOrAddLane(index);
  lane.slot = &slot;
  slot.bound.insert({entry.id(), index});
  if (!entry.every()) AdmitLane(entry, index);
}

void Scheduler::AdmitLane(BenchmarkEntry& entry, uint32_t index) {
  entry.FindLane(index)->admitted = true;
  ++entry.admitted;
  entry.unbound.erase(index);
}

void Scheduler::Unbind(BenchmarkEntry& entry, uint32_t index) {
  Lane& lane = *entry.FindLane(index);
  lane.slot->bound.erase({entry.id(), index});
  if (lane.turn) lane.slot->waiting.erase(*lane.turn);
  lane.turn.reset();
  lane.slot = nullptr;
  lane.admitted = false;
  --entry.admitted;
  entry.unbound.insert(index);
  UpdateQueue(entry);
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

void Scheduler::SettleLane(BenchmarkEntry& entry, uint32_t index) {
  Lane* lane = entry.FindLane(index);
  if (lane == nullptr) return;
  if (!lane->active && !entry.Waits(*lane)) {
    if (lane->turn) lane->slot->waiting.erase(*lane->turn);
    if (lane->slot != nullptr) lane->slot->bound.erase({entry.id(), index});
    if (lane->admitted) --entry.admitted;
    entry.unbound.erase(index);
    entry.EraseLane(index);
    UpdateQueue(entry);
  } else if (!entry.every() && !lane->active && lane->slot != nullptr && !lane->slot->worker->accepts()) {
    Unbind(entry, index);
  } else {
    UpdateTurn(entry, index);
  }
}

void Scheduler::FailLane(BenchmarkEntry& entry, uint32_t index, const std::string& reason, int64_t now,
                         Effects& effects) {
  Lane& lane = *entry.FindLane(index);
  std::vector<uint32_t> positions(lane.returned.begin(), lane.returned.end());
  for (uint32_t position = lane.next; position < entry.lane_length(); ++position) positions.push_back(position);
  lane.returned.clear();
  lane.next = entry.lane_length();
  v1::RunResult result;
  result.set_outcome(v1::OUTCOME_FAILED);
  result.set_reason(reason);
  for (const uint32_t position : positions) {
    EndRun(entry, entry.FindOrAddRun(entry.KeyOf(index, position)), result, now, effects);
  }
}

// Gives the lane its place among those that wait for its slot, or takes it away.
void Scheduler::UpdateTurn(BenchmarkEntry& entry, uint32_t index) {
  Lane& lane = *entry.FindLane(index);
  if (lane.turn) lane.slot->waiting.erase(*lane.turn);
  lane.turn.reset();
  if (lane.slot == nullptr || !lane.admitted || lane.active || entry.paused() || !entry.Waits(lane)) return;
  lane.turn = LaneTurn{entry.priority(), lane.started, {entry.id(), index}};
  lane.slot->waiting.insert(*lane.turn);
  idle_.push_back(lane.slot);
}

// Files the benchmark in the queue, or takes it out, as it has or has not a lane for any slot that fits.
void Scheduler::UpdateQueue(BenchmarkEntry& entry) {
  if (entry.every()) {
    if (entry.placed()) return Admit(entry);
    if (entry.over() || entry.paused()) {
      entry.work_class->unplaced.erase(entry.id());
    } else if (entry.work_class->unplaced.insert(entry.id()).second) {
      queue_.MarkChanged(*entry.work_class);
    }
    return;
  }
  const bool has_lane = entry.next_lane < entry.lane_count() || !entry.unbound.empty();
  const bool allowed = entry.max_slots() == 0 || entry.admitted < entry.max_slots();
  const bool wanted = !entry.over() && !entry.paused() && has_lane && allowed;
  if (wanted == entry.queued) return;
  entry.queued = wanted;
  if (wanted) {
    queue_.Push(*entry.work_class, *entry.submitter, entry.priority(), entry.id());
  } else {
    queue_.Remove(*entry.work_class, *entry.submitter, entry.priority(), entry.id());
  }
}

// Lets as many nodes begin as max_slots allows, those first whose slot is idle.
void Scheduler::Admit(BenchmarkEntry& entry) {
  const auto is_idle = [&entry](uint32_t index) {
    const Slot& slot = *entry.FindLane(index)->slot;
    return slot.kind != nullptr && !slot.busy;
  };
  while (!entry.unbound.empty() && (entry.max_slots() == 0 || entry.admitted < entry.max_slots())) {
    auto chosen = entry.unbound.begin();
    if (entry.max_slots() > 0) {
      const auto idle = std::find_if(entry.unbound.begin(), entry.unbound.end(), is_idle);
      if (idle != entry.unbound.end()) chosen = idle;
    }
    const uint32_t index = *chosen;
    AdmitLane(entry, index);
    UpdateTurn(entry, index);
  }
}

void Scheduler::PlaceOnEverySlot(BenchmarkEntry& entry, int64_t now, Effects& effects) {
  std::vector<Slot*> slots;
  for (const SlotKind* kind : entry.work_class->kinds) {
    slots.insert(slots.end(), kind->slots.begin(), kind->slots.end());
  }
  std::sort(slots.begin(), slots.end(), BySerial());
  const uint64_t runs = uint64_t{entry.runs_total()} * slots.size();
  if (runs > kMaxRuns) {
    CancelEntry(entry,
                absl::StrCat("placement every: ", slots.size(), " slots fit, which makes ", runs, " runs; at most ",
                             kMaxRuns, " are possible in one benchmark"),
                now, effects);
    return;
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
  entry.work_class->unplaced.erase(entry.id());
  for (uint32_t index = 0; index < slots.size(); ++index) {
    Bind(entry, index, *slots[index]);
    entry.unbound.insert(index);
  }
  effects.benchmarks.insert(entry.id());
  effects.placed.insert(entry.id());
  Admit(entry);
}

// Scheduling

void Scheduler::Schedule(int64_t now, Effects& effects) {
  TakeOverdue(now, effects);
  std::vector<uint64_t> to_place;
  for (const WorkClass* work_class : queue_.changed()) {
    if (work_class->open()) to_place.insert(to_place.end(), work_class->unplaced.begin(), work_class->unplaced.end());
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
    StartLane(*FindEntry(best.rank.benchmark), *WorkQueue::FindIdle(*best.work_class, ""), now, effects);
  }
}

void Scheduler::FillSlot(Slot& slot, int64_t now, Effects& effects) {
  while (slot.kind != nullptr && !slot.busy) {
    const WorkQueue::Candidate best = queue_.Best(*slot.kind);
    bool take_turn = !slot.waiting.empty();
    if (take_turn && best.work_class != nullptr) {
      const LaneTurn& turn = *slot.waiting.begin();
      const Submitter& submitter = *FindEntry(turn.lane.first)->submitter;
      const Rank rank{turn.priority, submitter.running, submitter.served, turn.lane.first};
      take_turn = turn.priority == best.rank.priority && turn.started ? true : rank < best.rank;
    }
    if (take_turn) {
      const LaneKey lane = slot.waiting.begin()->lane;
      Assign(*FindEntry(lane.first), lane.second, slot, now, effects);
    } else if (best.work_class != nullptr) {
      StartLane(*FindEntry(best.rank.benchmark), slot, now, effects);
    } else {
      return;
    }
  }
}

// A lane that was not lost with this worker, if there is one.
uint32_t Scheduler::PickLane(const BenchmarkEntry& entry, const std::string& worker) const {
  for (const uint32_t index : entry.unbound) {
    if (entry.FindLane(index)->avoid != worker) return index;
  }
  return entry.next_lane < entry.lane_count() ? entry.next_lane : *entry.unbound.begin();
}

void Scheduler::StartLane(BenchmarkEntry& entry, Slot& offered, int64_t now, Effects& effects) {
  Slot* slot = &offered;
  const uint32_t index = PickLane(entry, slot->worker->name());
  const Lane* lane = entry.FindLane(index);
  if (lane != nullptr && lane->avoid == slot->worker->name()) {
    Slot* other = WorkQueue::FindIdle(*entry.work_class, lane->avoid);
    // Unless something better waits for it.
    if (other->waiting.empty() && queue_.Best(*other->kind).rank.benchmark == entry.id()) slot = other;
  }
  if (index == entry.next_lane) ++entry.next_lane;
  Bind(entry, index, *slot);
  queue_.Serve(*entry.submitter);
  Assign(entry, index, *slot, now, effects);
  UpdateQueue(entry);
}

void Scheduler::Assign(BenchmarkEntry& entry, uint32_t index, Slot& slot, int64_t now, Effects& effects) {
  Lane& lane = *entry.FindLane(index);
  uint32_t position = lane.next;
  if (lane.returned.empty()) {
    ++lane.next;
  } else {
    position = *lane.returned.begin();
    lane.returned.erase(lane.returned.begin());
  }
  lane.active = true;
  lane.started = true;
  UpdateTurn(entry, index);
  v1::Run& run = entry.FindOrAddRun(entry.KeyOf(index, position));
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
