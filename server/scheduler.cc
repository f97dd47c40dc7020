#include "server/scheduler.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "proto/counted.h"
#include "proto/spec.h"

namespace attnfleet::server {
namespace {

// A worker that has been away for so long is no longer listed, and what only it could have run has failed.
constexpr int64_t kForgetWorkerMs = int64_t{24} * 3600 * 1000;

bool SameKey(const v1::RunKey& a, const v1::RunKey& b) {
  return a.benchmark_id() == b.benchmark_id() && a.job_index() == b.job_index() && a.repetition() == b.repetition();
}

void MarkEnded(v1::Run& run, v1::RunResult result, int64_t now) {
  run.set_state(v1::RUN_STATE_ENDED);
  *run.mutable_result() = std::move(result);
  run.clear_progress();
  run.set_ended_unix_ms(now);
}

void Changed(const v1::RunKey& key, Effects& effects) {
  effects.runs.insert({key.benchmark_id(), key.job_index(), key.repetition()});
}

v1::StopRun MakeStop(const v1::RunKey& key, uint32_t attempt, const std::string& reason) {
  v1::StopRun stop;
  *stop.mutable_run() = key;
  stop.set_attempt(attempt);
  stop.set_reason(reason);
  return stop;
}

void AddFailure(v1::Run& run, const std::string& reason, bool worker_lost, int64_t now) {
  v1::AttemptFailure& failure = *run.add_failed_attempts();
  failure.set_attempt(run.attempt());
  failure.set_worker(run.worker());
  failure.set_slot(run.slot());
  failure.set_reason(reason);
  failure.set_unix_ms(now);
  failure.set_worker_lost(worker_lost);
}

int WorkerLosses(const v1::Run& run) {
  const auto& failures = run.failed_attempts();
  return static_cast<int>(
      std::count_if(failures.begin(), failures.end(), [](const auto& failure) { return failure.worker_lost(); }));
}

std::string QuarantineReason(const v1::Run& run) {
  std::vector<std::string> losses;
  for (const v1::AttemptFailure& failure : run.failed_attempts()) {
    if (!failure.worker_lost()) continue;
    losses.push_back(absl::StrCat("attempt ", failure.attempt(), " on ", failure.worker(), " ", failure.slot(), " (",
                                  failure.reason(), ")"));
  }
  return absl::StrCat("quarantined, it lost its worker ", Counted(losses.size(), "time"), ": ",
                      absl::StrJoin(losses, ", "));
}

// Specs of an older version do not say.
int MaxWorkerLosses(const v1::BenchmarkSpec& spec) {
  return spec.has_max_worker_losses() ? spec.max_worker_losses() : kDefaultWorkerLosses;
}

}  // namespace

// Benchmarks

BenchmarkEntry* Scheduler::FindEntry(uint64_t id) {
  const auto found = benchmarks_.find(id);
  return found == benchmarks_.end() ? nullptr : found->second.get();
}

Scheduler::RunCounts& Scheduler::CountsOf(Counts& counts, const BenchmarkEntry& entry) {
  return counts.by_priority[entry.priority() < 0 ? 0 : entry.priority() == 0 ? 1 : 2];
}

uint64_t Scheduler::Counts::queued() const {
  return by_priority[0].queued + by_priority[1].queued + by_priority[2].queued;
}

uint64_t Scheduler::Counts::active() const {
  return by_priority[0].active + by_priority[1].active + by_priority[2].active;
}

const BenchmarkEntry* Scheduler::FindEntry(uint64_t id) const {
  const auto found = benchmarks_.find(id);
  return found == benchmarks_.end() ? nullptr : found->second.get();
}

BenchmarkEntry& Scheduler::AddEntry(const v1::Benchmark& head) {
  BenchmarkEntry& entry = *(benchmarks_[head.id()] = std::make_unique<BenchmarkEntry>(head));
  if (entry.over()) return entry;
  entry.filings.push_back({entry.first_need(), queue_.UseClass(head.spec(), entry.first_need())});
  entry.submitter = queue_.UseSubmitter(head.spec().submitter());
  if (entry.deadline_unix_ms() > 0) deadlines_.insert({entry.deadline_unix_ms(), entry.id()});
  return entry;
}

uint64_t Scheduler::Submit(const v1::BenchmarkSpec& spec, int64_t now, Effects& effects) {
  v1::Benchmark head;
  head.set_id(newest() + 1);
  *head.mutable_spec() = spec;
  head.set_state(v1::BENCHMARK_STATE_QUEUED);
  head.set_submitted_unix_ms(now);
  BenchmarkEntry& entry = AddEntry(head);
  CountsOf(counts_, entry).queued += entry.runs_waiting();
  effects.benchmarks.insert(head.id());
  UpdateQueue(entry);
  if (closed_) EndWhatNoSlotOffers(entry, now, effects);
  Schedule(now, effects);
  return head.id();
}

absl::Status Scheduler::Restore(const v1::Benchmark& head, std::vector<v1::Run> runs, int64_t now) {
  BenchmarkEntry& entry = AddEntry(head);
  for (const v1::Run& run : runs) {
    if (entry.Has(run.key())) continue;
    return absl::DataLossError(
        absl::StrCat("run ", FormatRunKey(run.key()), " is damaged: its benchmark has no such run"));
  }
  gathers_until_ = now + lease_ms_;
  fleet_returns_ = !closed_;
  if (entry.over()) {
    entry.ForgetLanes();
    entry.ForgetRuns();
    return absl::OkStatus();
  }
  RestoreRuns(entry, std::move(runs));
  RestoreLanes(entry, head, now);
  CountsOf(counts_, entry).queued += entry.runs_waiting();
  CountsOf(counts_, entry).active += entry.runs_active();
  UpdateQueue(entry);
  queue_.SetGathering(true);
  return absl::OkStatus();
}

void Scheduler::ForgetRuns(uint64_t id) {
  BenchmarkEntry* entry = FindEntry(id);
  if (entry != nullptr && entry->over()) entry->ForgetRuns();
}

std::vector<uint64_t> Scheduler::Expired(const Retention& retention, int64_t now, uint64_t max_runs) const {
  std::vector<uint64_t> expired;
  if (retention.max_benchmarks == 0 && retention.max_age_ms == 0) return expired;
  uint64_t runs = 0;
  uint64_t newer = benchmarks_.size();
  for (const auto& [id, entry] : benchmarks_) {
    if (--newer == 0) break;
    const bool too_many = retention.max_benchmarks > 0 && newer >= retention.max_benchmarks;
    const bool too_old = retention.max_age_ms > 0 && entry->ended_unix_ms() < now - retention.max_age_ms;
    if (!entry->over() || !(too_many || too_old)) continue;
    runs += entry->runs_total();
    if (!expired.empty() && runs > max_runs) break;
    expired.push_back(id);
  }
  return expired;
}

void Scheduler::RestoreRuns(BenchmarkEntry& entry, std::vector<v1::Run> runs) {
  for (v1::Run& run : runs) {
    const v1::RunKey key = run.key();
    Lane& lane = entry.FindOrAddLane(entry.LaneOf(key));
    if (run.attempt() > 0) lane.started = true;
    uint32_t& next = lane.runs[entry.BackendOf(key)].next;
    next = std::max(next, entry.RoundOf(key) + 1);
    if (run.state() == v1::RUN_STATE_ENDED) entry.RunEnded(false);
    const auto& failures = run.failed_attempts();
    if (!failures.empty() && failures.rbegin()->worker_lost()) lane.avoid = failures.rbegin()->worker();
    for (const v1::AttemptFailure& failure : failures) {
      if (!entry.every() && !failure.worker_lost()) lane.shuns.insert(failure.worker());
    }
    entry.FindOrAddRun(key) = std::move(run);
  }
}

void Scheduler::RestoreLanes(BenchmarkEntry& entry, const v1::Benchmark& stored, int64_t now) {
  if (!entry.every() && !entry.lanes().empty()) entry.next_lane = entry.lanes().rbegin()->first + 1;
  const uint32_t lanes = entry.every() ? entry.lane_count() : entry.next_lane;
  for (uint32_t index = 0; index < lanes; ++index) {
    Lane& lane = entry.FindOrAddLane(index);
    Slot* slot = nullptr;  // of its run
    for (uint32_t backend = 0; backend < entry.backends(); ++backend) {
      Lane::Runs& runs = lane.runs[backend];
      for (uint32_t round = 0; round < runs.next; ++round) {
        const v1::Run* run = entry.FindRun(entry.KeyOf(index, round, backend));
        if (run == nullptr || run->state() == v1::RUN_STATE_QUEUED) runs.returned.insert(round);
        if (run == nullptr || !IsActive(*run)) continue;
        slot = &PlaceholderSlot(run->worker(), run->slot(), now);
        queue_.SetBusy(*slot, true);
        slot->run = run->key();
      }
    }
    std::erase_if(lane.shuns, [&](const std::string& worker) { return entry.HasMeasured(index, worker); });
    FileLane(entry, index);
    if (entry.every()) {
      const v1::Node& node = stored.nodes(static_cast<int>(index));
      Bind(entry, index, PlaceholderSlot(node.worker(), node.slot(), now));
      if (slot != nullptr) AdmitLane(entry, index);
    }
    if (slot == nullptr) continue;
    if (lane.slot == nullptr) Bind(entry, index, *slot);
    lane.active = true;
    entry.RunBecameActive();
    queue_.AddRunning(*entry.submitter, 1);
  }
  // What has begun goes on before others begin, and on its slot; which of them had their place is not known.
  for (uint32_t index = 0; index < lanes; ++index) {
    const Lane& lane = *entry.FindLane(index);
    if (!lane.started || lane.admitted || entry.Wants(lane) == 0 || !entry.MayAdmit()) continue;
    if (entry.every()) {
      AdmitLane(entry, index);
    } else if (const v1::Run* last = entry.LastMeasured(index); last != nullptr && last->worker() != lane.avoid) {
      Bind(entry, index, PlaceholderSlot(last->worker(), last->slot(), now));
    }
  }
  for (uint32_t index = 0; index < lanes; ++index) SettleLane(entry, index);
}

// A slot whose worker has not come back yet.
Slot& Scheduler::PlaceholderSlot(const std::string& name, const std::string& slot, int64_t now) {
  Worker& worker = fleet_.FindOrAdd(name, now);
  worker.drained = drained_.contains(name);
  return fleet_.FindOrAddSlot(worker, slot);
}

bool Scheduler::Cancel(uint64_t id, const std::string& reason, int64_t now, Effects& effects) {
  BenchmarkEntry* entry = FindEntry(id);
  if (entry == nullptr) return false;
  if (entry->over()) return true;
  CancelEntry(*entry, reason, now, effects);
  Schedule(now, effects);
  return true;
}

void Scheduler::CancelEntry(BenchmarkEntry& entry, const std::string& reason, int64_t now, Effects& effects) {
  uint32_t known = 0;  // runs with a row of their own
  for (auto& [index, lane] : entry.lanes()) {
    for (uint32_t backend = 0; backend < entry.backends(); ++backend) {
      for (const uint32_t round : lane.runs[backend].returned) {
        v1::Run* run = entry.FindRun(entry.KeyOf(index, round, backend));
        if (run == nullptr) continue;
        MarkEnded(*run, MakeResult(v1::OUTCOME_CANCELLED, reason), now);
        Changed(run->key(), effects);
        ++known;
      }
    }
    if (!lane.active) continue;
    v1::Run& run = *entry.FindRun(lane.slot->run);
    effects.stop.push_back({run.worker(), MakeStop(run.key(), run.attempt(), reason)});
    ReleaseSlot(entry, run);
    MarkEnded(run, MakeResult(v1::OUTCOME_CANCELLED, reason), now);
    entry.RunEnded(true);
    Changed(run.key(), effects);
  }
  CountsOf(counts_, entry).queued -= entry.runs_waiting();
  effects.cancelled_unassigned += entry.runs_waiting() - known;
  Close(entry, v1::BENCHMARK_STATE_CANCELLED, reason, now, effects);
}

void Scheduler::Close(BenchmarkEntry& entry, v1::BenchmarkState state, const std::string& reason, int64_t now,
                      Effects& effects) {
  for (auto& [index, lane] : entry.lanes()) {
    if (lane.slot == nullptr) continue;
    lane.slot->bound.erase({entry.id(), index});
    if (lane.turn) lane.slot->waiting.erase(*lane.turn);
  }
  entry.End(state, reason, now);
  UpdateQueue(entry);
  deadlines_.erase({entry.deadline_unix_ms(), entry.id()});
  for (const BenchmarkEntry::Filing& filing : std::exchange(entry.filings, {})) queue_.ReleaseClass(filing.work_class);
  queue_.ReleaseSubmitter(std::exchange(entry.submitter, nullptr));
  effects.benchmarks.insert(entry.id());
}

bool Scheduler::SetPaused(uint64_t id, bool paused, int64_t now, Effects& effects) {
  BenchmarkEntry* entry = FindEntry(id);
  if (entry == nullptr) return false;
  if (entry->over() || entry->paused() == paused) return true;
  entry->SetPaused(paused);
  for (const auto& [index, lane] : entry->lanes()) UpdateTurn(*entry, index);
  UpdateQueue(*entry);
  effects.benchmarks.insert(id);
  Schedule(now, effects);
  return true;
}

// Workers

void Scheduler::WorkerJoined(const v1::WorkerHello& hello, int64_t now, Effects& effects) {
  Worker& worker = fleet_.FindOrAdd(hello.worker().name(), now);
  fleet_.Heard(worker, now);
  SetConnected(worker, false);  // its slots are counted and filed anew below
  worker.info = hello.worker();
  worker.draining = hello.draining();
  worker.awaited_until = now;  // if no slot of it is in service, only another hello will change that
  worker.drained = drained_.contains(worker.name());
  for (auto& [id, slot] : worker.slots) slot->offered = false;
  for (const v1::Slot& info : hello.worker().slots()) {
    Slot& slot = fleet_.FindOrAddSlot(worker, info.id());
    slot.info = info;
    slot.offered = true;
  }
  TakeHello(worker, hello, now, effects);
  DropMissingSlots(worker, now, effects);
  SetConnected(worker, true);
  FileSlots(worker, now, effects);
  Schedule(now, effects);
}

// What the worker's slots have counts until its lease ends, also if it is away, and for one lease if it is about to
// stop: it may be back at once. One that stops later, that has no slot in service, or that an administrator has drained
// may stay so: nothing is to wait for it while another slot has a part of what is wanted.
void Scheduler::FileSlots(Worker& worker, int64_t now, Effects& effects) {
  std::vector<Slot*> other;  // than they were
  for (auto& [id, slot] : worker.slots) {
    if (!worker.awaited(now)) {
      queue_.RemoveSlot(*slot);
    } else if (slot->offered && !worker.lost && queue_.AddSlot(*slot)) {
      other.push_back(slot.get());
    }
  }
  UpdateSlots(worker);
  if (!worker.accepts()) UnbindAll(worker);
  for (Slot* slot : other) SettleBound(*slot, now, effects);
  SettlePlaces(worker);
  EndWhatNoSlotOffers(now, effects);
}

// What the slot has may be something else than when its lanes were bound.
void Scheduler::SettleBound(Slot& slot, int64_t now, Effects& effects) {
  const std::set<LaneKey> bound = slot.bound;
  for (const auto& [benchmark, index] : bound) {
    BenchmarkEntry& entry = *FindEntry(benchmark);
    if (entry.every()) EndWhatNodeLacks(entry, index, now, effects);
    if (!entry.over()) SettleLane(entry, index);
  }
}

// What the worker says of its runs against what is known of them.
void Scheduler::TakeHello(Worker& worker, const v1::WorkerHello& hello, int64_t now, Effects& effects) {
  const std::string& name = worker.name();
  std::vector<v1::RunKey> held;
  for (const auto& [id, slot] : worker.slots) {
    if (slot->busy) held.push_back(slot->run);
  }
  for (const v1::RunReport& report : hello.unacknowledged()) TakeReport(name, report, now, effects);
  std::vector<v1::RunKey> claimed;
  for (const v1::ActiveRun& active : hello.active()) {
    const v1::Run* run = FindCurrent(name, active.run(), active.attempt());
    const Slot* slot = Fleet::FindSlot(worker, active.slot());
    if (run != nullptr && run->slot() == active.slot() && slot != nullptr && slot->offered) {
      claimed.push_back(active.run());
    } else {
      effects.stop.push_back({name, MakeStop(active.run(), active.attempt(), "this attempt is no longer wanted")});
    }
  }
  for (const v1::RunKey& key : held) {
    const auto same = [&key](const v1::RunKey& other) { return SameKey(key, other); };
    if (std::any_of(claimed.begin(), claimed.end(), same)) continue;
    BenchmarkEntry& entry = *FindEntry(key.benchmark_id());
    v1::Run& run = *entry.FindRun(key);
    if (!IsActive(run) || run.worker() != name) continue;  // just reported
    // Its trainer has never been heard of: perhaps the command did not arrive, which is nobody's failure.
    if (run.state() == v1::RUN_STATE_ASSIGNED) {
      Requeue(entry, run, now, effects);
    } else {
      LoseRun(key, absl::StrCat("worker ", name, " came back without it"), now, effects);
    }
  }
}

void Scheduler::DropMissingSlots(Worker& worker, int64_t now, Effects& effects) {
  for (auto it = worker.slots.begin(); it != worker.slots.end();) {
    Slot& slot = *it->second;
    if (slot.offered) {
      ++it;
      continue;
    }
    const std::set<LaneKey> bound = slot.bound;
    for (const auto& [id, index] : bound) {
      BenchmarkEntry& entry = *FindEntry(id);
      if (entry.every()) {
        FailLane(entry, index, absl::StrCat("worker ", worker.name(), " no longer offers ", slot.info.id()), now,
                 effects);
      } else {
        Unbind(entry, index);
      }
    }
    queue_.RemoveSlot(slot);
    std::erase(idle_, &slot);
    it = worker.slots.erase(it);
  }
}

void Scheduler::WorkerDisconnected(const std::string& name, int64_t now) {
  Worker* worker = fleet_.Find(name);
  if (worker == nullptr) return;
  fleet_.Heard(*worker, now);
  SetConnected(*worker, false);
  UpdateSlots(*worker);
}

void Scheduler::ForgiveSilence(int64_t silence, int64_t now) {
  fleet_.Forgive(silence, now);
  gathers_until_ += silence;
  for (auto& [until, name] : std::exchange(drains_, {})) {
    Worker* worker = fleet_.Find(name);
    if (worker == nullptr || worker->awaited_until != until) continue;
    worker->awaited_until += silence;
    drains_.insert({worker->awaited_until, name});
  }
}

void Scheduler::WorkerHeard(const std::string& name, bool draining, int64_t now, Effects& effects) {
  Worker* worker = fleet_.Find(name);
  if (worker == nullptr) return;
  fleet_.Heard(*worker, now);
  if (std::exchange(worker->draining, draining) != draining) {
    worker->awaited_until = now + lease_ms_;
    if (draining) drains_.insert({worker->awaited_until, name});
    FileSlots(*worker, now, effects);
  }
  Schedule(now, effects);
}

bool Scheduler::SetDrained(const std::string& name, bool drained, int64_t now, Effects& effects) {
  Worker* worker = fleet_.Find(name);
  if (worker == nullptr && !drained_.contains(name)) return false;
  const bool changed = drained ? drained_.insert(name).second : drained_.erase(name) > 0;
  if (!changed) return true;
  effects.drained[name] = drained;
  if (worker == nullptr) return true;
  worker->drained = drained;
  FileSlots(*worker, now, effects);
  Schedule(now, effects);
  return true;
}

void Scheduler::LoseWorker(Worker& worker, const std::string& reason, int64_t now, Effects& effects) {
  // A stream that lingers is ended: the worker's next hello says what it still does, and it is told what to stop.
  if (worker.connected) effects.disconnect.push_back(worker.name());
  SetConnected(worker, false);
  UpdateSlots(worker);
  fleet_.MarkLost(worker);
  std::vector<v1::RunKey> lost;
  for (const auto& [id, slot] : worker.slots) {
    if (slot->busy) lost.push_back(slot->run);
  }
  for (const v1::RunKey& key : lost) {
    BenchmarkEntry& entry = *FindEntry(key.benchmark_id());
    v1::Run& run = *entry.FindRun(key);
    // It was given out while the worker was leaving, and has not been begun.
    if (worker.draining && run.state() == v1::RUN_STATE_ASSIGNED) {
      Requeue(entry, run, now, effects);
    } else {
      LoseRun(key, reason, now, effects);
    }
  }
  UnbindAll(worker);
  SettlePlaces(worker);
  for (auto& [id, slot] : worker.slots) queue_.RemoveSlot(*slot);
}

void Scheduler::ForgetWorker(Worker& worker, int64_t now, Effects& effects) {
  for (auto& [id, slot] : worker.slots) slot->offered = false;
  DropMissingSlots(worker, now, effects);
  fleet_.Erase(worker);
}

void Scheduler::Tick(int64_t now, Effects& effects) { Schedule(now, effects); }

void Scheduler::TakeOverdue(int64_t now, Effects& effects) {
  for (Worker* worker = fleet_.LongestSilent(); worker != nullptr && now - worker->heard > lease_ms_;
       worker = fleet_.LongestSilent()) {
    LoseWorker(*worker,
               absl::StrCat("worker ", worker->name(), " was lost: silent for ", (now - worker->heard) / 1000, " s"),
               now, effects);
  }
  const int64_t forget_ms = std::max(kForgetWorkerMs, lease_ms_);
  for (Worker* worker = fleet_.LongestLost(); worker != nullptr && now - worker->heard > forget_ms;
       worker = fleet_.LongestLost()) {
    ForgetWorker(*worker, now, effects);
  }
  while (!drains_.empty() && drains_.begin()->first <= now) {
    Worker* worker = fleet_.Find(drains_.extract(drains_.begin()).value().second);
    if (worker != nullptr) FileSlots(*worker, now, effects);
  }
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    BenchmarkEntry& entry = *FindEntry(deadlines_.begin()->second);
    const double seconds = entry.Spec().deadline_seconds();
    CancelEntry(
        entry, absl::StrCat("its deadline passed, ", absl::FormatDuration(absl::Seconds(seconds)), " after its submit"),
        now, effects);
  }
}

// Runs

const v1::Run* Scheduler::FindRun(const v1::RunKey& key) const {
  const BenchmarkEntry* entry = FindEntry(key.benchmark_id());
  return entry == nullptr ? nullptr : entry->FindRun(key);
}

std::shared_ptr<const v1::Run> Scheduler::ShareRun(const v1::RunKey& key) {
  return FindEntry(key.benchmark_id())->ShareRun(key);
}

v1::Run* Scheduler::FindCurrent(const std::string& worker, const v1::RunKey& key, uint32_t attempt) {
  BenchmarkEntry* entry = FindEntry(key.benchmark_id());
  v1::Run* run = entry == nullptr ? nullptr : entry->FindRun(key);
  return run != nullptr && IsActive(*run) && run->attempt() == attempt && run->worker() == worker ? run : nullptr;
}

void Scheduler::RunProgressed(const std::string& name, const v1::RunProgress& progress, int64_t now, Effects& effects) {
  if (Worker* worker = fleet_.Find(name); worker != nullptr) fleet_.Heard(*worker, now);
  v1::Run* run = FindCurrent(name, progress.run(), progress.attempt());
  if (run == nullptr) return;
  const v1::RunKey& key = run->key();
  // Saved once: should this host die with the worker's, the store tells that the run was begun and so was lost.
  if (run->state() != v1::RUN_STATE_RUNNING) Changed(key, effects);
  run->set_state(v1::RUN_STATE_RUNNING);
  *run->mutable_progress() = progress.progress();
  effects.progressed.insert({key.benchmark_id(), key.job_index(), key.repetition()});
}

void Scheduler::RunReported(const std::string& name, const v1::RunReport& report, int64_t now, Effects& effects) {
  if (Worker* worker = fleet_.Find(name); worker != nullptr) fleet_.Heard(*worker, now);
  TakeReport(name, report, now, effects);
  Schedule(now, effects);
}

void Scheduler::RunHandedBack(const std::string& name, const v1::RunHandedBack& handed_back, int64_t now,
                              Effects& effects) {
  if (Worker* worker = fleet_.Find(name); worker != nullptr) fleet_.Heard(*worker, now);
  v1::Run* run = FindCurrent(name, handed_back.run(), handed_back.attempt());
  if (run == nullptr) return;
  Requeue(*FindEntry(handed_back.run().benchmark_id()), *run, now, effects);
  Schedule(now, effects);
}

void Scheduler::TakeReport(const std::string& name, const v1::RunReport& report, int64_t now, Effects& effects) {
  v1::ActiveRun acknowledged;
  *acknowledged.mutable_run() = report.run();
  acknowledged.set_attempt(report.attempt());
  acknowledged.set_slot(report.slot());
  effects.acknowledge.push_back({name, acknowledged});
  v1::Run* run = FindCurrent(name, report.run(), report.attempt());
  if (run == nullptr) return;  // stale, or known already
  BenchmarkEntry& entry = *FindEntry(report.run().benchmark_id());
  const bool crashed = report.result().outcome() == v1::OUTCOME_FAILED && !report.result().failure().timed_out();
  // Nobody here cancelled it: a current run would not be current then.
  const bool handed_back = report.result().outcome() == v1::OUTCOME_CANCELLED;
  if (!handed_back) entry.FindLane(entry.LaneOf(run->key()))->slot->crashed = crashed;
  if (crashed) {
    FailAttempt(entry, *run, report.result(), false, now, effects);
  } else if (handed_back) {
    Requeue(entry, *run, now, effects);
  } else {
    EndRun(entry, *run, report.result(), now, effects);
  }
}

void Scheduler::FailAttempt(BenchmarkEntry& entry, v1::Run& run, v1::RunResult result, bool worker_lost, int64_t now,
                            Effects& effects) {
  const v1::BenchmarkSpec& spec = entry.Spec();
  if (worker_lost && WorkerLosses(run) + 1 >= MaxWorkerLosses(spec)) {
    AddFailure(run, result.reason(), true, now);
    run.set_quarantined(true);
    EndRun(entry, run, MakeResult(v1::OUTCOME_FAILED, QuarantineReason(run)), now, effects);
    return;
  }
  const uint32_t index = entry.LaneOf(run.key());
  // A slot where something was measured keeps its lane, for the backends are compared on one device.
  const bool shun = !worker_lost && !entry.every() && !entry.HasMeasured(index, run.worker());
  if (shun) entry.FindLane(index)->shuns.insert(run.worker());
  const bool is_last = run.failed_attempts_size() + 1 >= spec.max_attempts();
  if (is_last) {
    EndRun(entry, run, std::move(result), now, effects);
  } else {
    AddFailure(run, result.reason(), worker_lost, now);
    if (worker_lost) entry.FindLane(index)->avoid = run.worker();
    Requeue(entry, run, now, effects);
  }
  if (entry.every() || !(shun || (worker_lost && !is_last))) return;
  const Lane* lane = entry.FindLane(index);  // null: that was all of it
  if (lane != nullptr && lane->slot != nullptr) Unbind(entry, index);
}

void Scheduler::Requeue(BenchmarkEntry& entry, v1::Run& run, int64_t now, Effects& effects) {
  ReleaseSlot(entry, run);
  run.set_state(v1::RUN_STATE_QUEUED);
  run.clear_progress();
  entry.RunReturned();
  ++CountsOf(counts_, entry).queued;
  entry.ReturnRun(run.key());
  Changed(run.key(), effects);
  const uint32_t index = entry.LaneOf(run.key());
  SettleLane(entry, index);
  // Its worker may have come back with less while the run was on it.
  if (entry.every() && entry.FindLane(index)->slot->kind != nullptr) EndWhatNodeLacks(entry, index, now, effects);
}

void Scheduler::EndRun(BenchmarkEntry& entry, v1::Run& run, v1::RunResult result, int64_t now, Effects& effects) {
  const bool was_active = IsActive(run);
  if (was_active) {
    ReleaseSlot(entry, run);
    if (result.outcome() == v1::OUTCOME_MEASURED) entry.FindLane(entry.LaneOf(run.key()))->shuns.erase(run.worker());
  } else {
    --CountsOf(counts_, entry).queued;
  }
  MarkEnded(run, std::move(result), now);
  entry.RunEnded(was_active);
  Changed(run.key(), effects);
  if (entry.runs_ended() == entry.runs_total()) {
    Close(entry, v1::BENCHMARK_STATE_FINISHED, "", now, effects);
  } else {
    SettleLane(entry, entry.LaneOf(run.key()));
  }
}

void Scheduler::LoseRun(const v1::RunKey& key, const std::string& reason, int64_t now, Effects& effects) {
  BenchmarkEntry& entry = *FindEntry(key.benchmark_id());
  FailAttempt(entry, *entry.FindRun(key), MakeResult(v1::OUTCOME_FAILED, reason), true, now, effects);
}

}  // namespace attnfleet::server
