#include "server/scheduler.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "proto/reason.h"
#include "proto/spec.h"

namespace attnfleet::server {
namespace {

// A worker that has been away for so long is no longer listed.
constexpr int64_t kForgetWorkerMs = int64_t{24} * 3600 * 1000;

bool IsActive(const v1::Run& run) {
  return run.state() == v1::RUN_STATE_ASSIGNED || run.state() == v1::RUN_STATE_RUNNING;
}

bool IsOver(const v1::Benchmark& benchmark) {
  return benchmark.state() == v1::BENCHMARK_STATE_FINISHED || benchmark.state() == v1::BENCHMARK_STATE_CANCELLED;
}

bool SameKey(const v1::RunKey& a, const v1::RunKey& b) {
  return a.benchmark_id() == b.benchmark_id() && a.job_index() == b.job_index() && a.repetition() == b.repetition();
}

v1::RunResult MakeResult(v1::Outcome outcome, const std::string& reason) {
  v1::RunResult result;
  result.set_outcome(outcome);
  result.set_reason(reason);
  return result;
}

bool Offers(const v1::WorkerInfo& worker, const std::string& backend, v1::DeviceKind device) {
  for (const v1::Backend& offered : worker.backends()) {
    if (offered.name() != backend) continue;
    return std::find(offered.devices().begin(), offered.devices().end(), device) != offered.devices().end();
  }
  return false;
}

}  // namespace

// Events

void Scheduler::Restore(std::vector<v1::Benchmark> benchmarks, int64_t now) {
  for (v1::Benchmark& stored : benchmarks) {
    const uint64_t id = stored.id();
    Entry& entry = benchmarks_[id];
    entry.benchmark = std::move(stored);
    for (const v1::Job& job : entry.benchmark.jobs()) {
      if (job.group() >= entry.groups.size()) entry.groups.emplace_back().first_job = job.index();
      Group& group = entry.groups.back();
      ++group.jobs;
      group.positions += static_cast<uint32_t>(job.runs_size());
    }
    for (Group& group : entry.groups) group.next = group.positions;
    if (IsOver(entry.benchmark)) continue;
    for (v1::Job& job : *entry.benchmark.mutable_jobs()) {
      const GroupKey key{id, job.group()};
      Group& group = entry.groups[job.group()];
      for (v1::Run& run : *job.mutable_runs()) {
        if (run.state() == v1::RUN_STATE_QUEUED) {
          group.returned.insert(Position(group, run.key()));
          ++queued_;
        } else if (IsActive(run)) {
          WorkerState& worker = workers_[run.worker()];
          worker.info.set_name(run.worker());
          worker.heard = now;
          SlotState& slot = worker.slots[run.slot()];
          slot.slot.set_id(run.slot());
          slot.busy = true;
          slot.run = run.key();
          group.active = true;
          Bind(key, group, {run.worker(), run.slot()});
          ++active_;
        }
      }
      if (group.waiting() && group.bound.first.empty()) unbound_.insert(key);
    }
  }
  try_all_slots_ = true;
}

uint64_t Scheduler::Submit(const v1::BenchmarkSpec& spec, int64_t now, Effects& effects) {
  const uint64_t id = newest() + 1;
  Entry& entry = benchmarks_[id];
  entry.benchmark.set_id(id);
  *entry.benchmark.mutable_spec() = spec;
  entry.benchmark.set_state(v1::BENCHMARK_STATE_QUEUED);
  entry.benchmark.set_submitted_unix_ms(now);
  uint32_t total = 0;
  for (v1::Job& job : ExpandJobs(id, spec)) {
    if (job.group() >= entry.groups.size()) entry.groups.emplace_back().first_job = job.index();
    Group& group = entry.groups.back();
    ++group.jobs;
    group.positions += static_cast<uint32_t>(job.runs_size());
    total += static_cast<uint32_t>(job.runs_size());
    *entry.benchmark.add_jobs() = std::move(job);
  }
  entry.benchmark.set_runs_total(total);
  queued_ += total;
  for (uint32_t i = 0; i < entry.groups.size(); ++i) unbound_.insert({id, i});
  effects.benchmarks.insert(id);
  try_all_slots_ = true;
  Schedule(now, effects);
  return id;
}

bool Scheduler::Cancel(uint64_t id, const std::string& reason, int64_t now, Effects& effects) {
  const auto found = benchmarks_.find(id);
  if (found == benchmarks_.end()) return false;
  Entry& entry = found->second;
  if (IsOver(entry.benchmark)) return true;
  for (uint32_t i = 0; i < entry.groups.size(); ++i) {
    entry.groups[i].next = entry.groups[i].positions;
    entry.groups[i].returned.clear();
    unbound_.erase({id, i});
  }
  for (v1::Job& job : *entry.benchmark.mutable_jobs()) {
    for (v1::Run& run : *job.mutable_runs()) {
      if (run.state() == v1::RUN_STATE_ENDED) continue;
      if (IsActive(run)) {
        v1::StopRun stop;
        *stop.mutable_run() = run.key();
        stop.set_attempt(run.attempt());
        stop.set_reason(reason);
        effects.stop.push_back({run.worker(), stop});
      }
      EndRun(entry, run, MakeResult(v1::OUTCOME_CANCELLED, reason), now, effects);
    }
  }
  entry.benchmark.set_state(v1::BENCHMARK_STATE_CANCELLED);
  entry.benchmark.set_cancel_reason(reason);
  entry.benchmark.set_ended_unix_ms(now);
  effects.benchmarks.insert(id);
  Schedule(now, effects);
  return true;
}

void Scheduler::WorkerJoined(const v1::WorkerHello& hello, int64_t now, Effects& effects) {
  const std::string& name = hello.worker().name();
  WorkerState& worker = workers_[name];
  std::vector<v1::RunKey> held;  // what this worker had, as far as we know
  for (const auto& [id, slot] : worker.slots) {
    if (slot.busy) held.push_back(slot.run);
  }
  std::map<std::string, SlotState> before;
  before.swap(worker.slots);
  for (const v1::Slot& slot : hello.worker().slots()) {
    SlotState& state = worker.slots[slot.id()];
    if (const auto old = before.find(slot.id()); old != before.end()) {
      state = std::move(old->second);
      before.erase(old);
    }
    state.slot = slot;
    idle_.insert({name, slot.id()});
  }
  // Slots that are no longer offered: kept until what ran there is settled below.
  for (auto& [id, slot] : before) worker.slots[id] = std::move(slot);

  worker.info = hello.worker();
  worker.connected = true;
  worker.draining = hello.draining();
  worker.heard = now;
  for (const v1::RunReport& report : hello.unacknowledged()) TakeReport(name, report, now, effects);
  std::vector<v1::RunKey> claimed;
  for (const v1::ActiveRun& active : hello.active()) {
    const v1::Run* run = FindCurrent(name, active.run(), active.attempt());
    // A slot that is not offered (any more) runs nothing, whatever the worker says.
    if (run != nullptr && run->slot() == active.slot() && !before.contains(active.slot())) {
      claimed.push_back(active.run());
      continue;
    }
    v1::StopRun stop;
    *stop.mutable_run() = active.run();
    stop.set_attempt(active.attempt());
    stop.set_reason("this attempt is no longer wanted");
    effects.stop.push_back({name, stop});
  }
  for (const v1::RunKey& key : held) {
    const auto same = [&key](const v1::RunKey& other) { return SameKey(key, other); };
    if (std::any_of(claimed.begin(), claimed.end(), same)) continue;
    Entry& entry = *FindEntry(key);
    v1::Run& run = RunAt(entry, key);
    if (!IsActive(run) || run.worker() != name) continue;  // just reported
    // Its trainer has never been heard of: perhaps the command did not arrive, which is nobody's failure.
    if (run.state() == v1::RUN_STATE_ASSIGNED) {
      Requeue(entry, run, effects);
    } else {
      LoseRun(key, absl::StrCat("worker ", name, " came back without it"), now, effects);
    }
  }
  for (const auto& [id, slot] : before) {
    const std::set<GroupKey> bound = worker.slots[id].bound;
    for (const GroupKey& key : bound) Unbind(key, benchmarks_.at(key.first).groups[key.second]);
    worker.slots.erase(id);
  }
  if (worker.draining) UnbindAll(name);
  Schedule(now, effects);
}

void Scheduler::WorkerDisconnected(const std::string& name, int64_t now) {
  const auto found = workers_.find(name);
  if (found == workers_.end()) return;
  found->second.connected = false;
  found->second.heard = now;
}

void Scheduler::WorkerHeard(const std::string& name, bool draining, int64_t now, Effects& effects) {
  const auto found = workers_.find(name);
  if (found == workers_.end()) return;
  WorkerState& worker = found->second;
  worker.heard = now;
  if (draining && !worker.draining) UnbindAll(name);
  worker.draining = draining;
  Schedule(now, effects);
}

void Scheduler::RunProgressed(const std::string& name, const v1::RunProgress& progress, int64_t now, Effects& effects) {
  if (const auto found = workers_.find(name); found != workers_.end()) found->second.heard = now;
  v1::Run* run = FindCurrent(name, progress.run(), progress.attempt());
  if (run == nullptr) return;
  run->set_state(v1::RUN_STATE_RUNNING);
  *run->mutable_progress() = progress.progress();
  const v1::RunKey& key = run->key();
  effects.progressed.insert({key.benchmark_id(), key.job_index(), key.repetition()});
}

void Scheduler::RunReported(const std::string& name, const v1::RunReport& report, int64_t now, Effects& effects) {
  if (const auto found = workers_.find(name); found != workers_.end()) found->second.heard = now;
  TakeReport(name, report, now, effects);
  Schedule(now, effects);
}

void Scheduler::RunHandedBack(const std::string& name, const v1::RunHandedBack& handed_back, int64_t now,
                              Effects& effects) {
  if (const auto found = workers_.find(name); found != workers_.end()) found->second.heard = now;
  v1::Run* run = FindCurrent(name, handed_back.run(), handed_back.attempt());
  if (run == nullptr) return;
  Requeue(*FindEntry(handed_back.run()), *run, effects);
  Schedule(now, effects);
}

void Scheduler::Tick(int64_t now, Effects& effects) {
  for (auto it = workers_.begin(); it != workers_.end();) {
    const auto current = it++;
    const int64_t silent = now - current->second.heard;
    if (silent > lease_ms_) {
      LoseWorker(current->first, absl::StrCat("worker ", current->first, " was lost: silent for ", silent / 1000, " s"),
                 now, effects);
    }
    if (silent > std::max(kForgetWorkerMs, lease_ms_)) workers_.erase(current);
  }
  Schedule(now, effects);
}

// State of runs

Scheduler::Entry* Scheduler::FindEntry(const v1::RunKey& key) {
  const auto found = benchmarks_.find(key.benchmark_id());
  return found == benchmarks_.end() ? nullptr : &found->second;
}

v1::Run& Scheduler::RunAt(Entry& entry, const v1::RunKey& key) {
  return *entry.benchmark.mutable_jobs(static_cast<int>(key.job_index()))
              ->mutable_runs(static_cast<int>(key.repetition()));
}

Scheduler::Group& Scheduler::GroupOf(Entry& entry, const v1::RunKey& key) {
  return entry.groups[entry.benchmark.jobs(static_cast<int>(key.job_index())).group()];
}

uint32_t Scheduler::Position(const Group& group, const v1::RunKey& key) const {
  return key.repetition() * group.jobs + key.job_index() - group.first_job;
}

v1::Run* Scheduler::FindCurrent(const std::string& worker, const v1::RunKey& key, uint32_t attempt) {
  Entry* entry = FindEntry(key);
  if (entry == nullptr || key.job_index() >= static_cast<uint32_t>(entry->benchmark.jobs_size())) return nullptr;
  const v1::Job& job = entry->benchmark.jobs(static_cast<int>(key.job_index()));
  if (key.repetition() >= static_cast<uint32_t>(job.runs_size())) return nullptr;
  v1::Run& run = RunAt(*entry, key);
  return IsActive(run) && run.attempt() == attempt && run.worker() == worker ? &run : nullptr;
}

void Scheduler::Changed(const v1::Run& run, Effects& effects) const {
  effects.runs.insert({run.key().benchmark_id(), run.key().job_index(), run.key().repetition()});
}

void Scheduler::TakeReport(const std::string& name, const v1::RunReport& report, int64_t now, Effects& effects) {
  v1::ActiveRun acknowledged;
  *acknowledged.mutable_run() = report.run();
  acknowledged.set_attempt(report.attempt());
  acknowledged.set_slot(report.slot());
  effects.acknowledge.push_back({name, acknowledged});
  v1::Run* run = FindCurrent(name, report.run(), report.attempt());
  if (run == nullptr) return;  // stale, or known already
  Entry& entry = *FindEntry(report.run());
  if (report.result().outcome() == v1::OUTCOME_FAILED && !report.result().failure().timed_out()) {
    FailAttempt(entry, *run, report.result(), now, effects);
  } else if (report.result().outcome() == v1::OUTCOME_CANCELLED) {
    Requeue(entry, *run, effects);  // nobody here cancelled it: a current run would not be current then
  } else {
    EndRun(entry, *run, report.result(), now, effects);
  }
}

void Scheduler::FailAttempt(Entry& entry, v1::Run& run, v1::RunResult result, int64_t now, Effects& effects) {
  if (run.failed_attempts_size() + 1 >= entry.benchmark.spec().max_attempts()) {
    EndRun(entry, run, std::move(result), now, effects);
    return;
  }
  v1::AttemptFailure& failure = *run.add_failed_attempts();
  failure.set_attempt(run.attempt());
  failure.set_worker(run.worker());
  failure.set_slot(run.slot());
  failure.set_reason(result.reason());
  failure.set_unix_ms(now);
  Requeue(entry, run, effects);
}

void Scheduler::Requeue(Entry& entry, v1::Run& run, Effects& effects) {
  ReleaseSlot(run);
  run.set_state(v1::RUN_STATE_QUEUED);
  run.clear_progress();
  --active_;
  ++queued_;
  Group& group = GroupOf(entry, run.key());
  const GroupKey key{entry.benchmark.id(), entry.benchmark.jobs(static_cast<int>(run.key().job_index())).group()};
  group.active = false;
  group.returned.insert(Position(group, run.key()));
  const auto worker = workers_.find(group.bound.first);
  const bool usable =
      worker != workers_.end() && !worker->second.draining && worker->second.slots.contains(group.bound.second);
  if (!usable) Unbind(key, group);
  Changed(run, effects);
}

void Scheduler::EndRun(Entry& entry, v1::Run& run, v1::RunResult result, int64_t now, Effects& effects) {
  Group& group = GroupOf(entry, run.key());
  if (IsActive(run)) {
    ReleaseSlot(run);
    group.active = false;
    --active_;
  } else {
    --queued_;
  }
  run.set_state(v1::RUN_STATE_ENDED);
  *run.mutable_result() = std::move(result);
  run.clear_progress();
  run.set_ended_unix_ms(now);
  entry.benchmark.set_runs_ended(entry.benchmark.runs_ended() + 1);
  if (!group.waiting() && !group.active) {
    Unbind({entry.benchmark.id(), entry.benchmark.jobs(static_cast<int>(run.key().job_index())).group()}, group);
  }
  Changed(run, effects);
  UpdateState(entry, now, effects);
}

void Scheduler::UpdateState(Entry& entry, int64_t now, Effects& effects) {
  if (entry.benchmark.runs_ended() < entry.benchmark.runs_total()) return;
  entry.benchmark.set_state(v1::BENCHMARK_STATE_FINISHED);
  entry.benchmark.set_ended_unix_ms(now);
  effects.benchmarks.insert(entry.benchmark.id());
}

void Scheduler::LoseRun(const v1::RunKey& key, const std::string& reason, int64_t now, Effects& effects) {
  Entry& entry = *FindEntry(key);
  FailAttempt(entry, RunAt(entry, key), MakeResult(v1::OUTCOME_FAILED, reason), now, effects);
}

void Scheduler::LoseWorker(const std::string& name, const std::string& reason, int64_t now, Effects& effects) {
  WorkerState& worker = workers_.at(name);
  std::vector<v1::RunKey> lost;
  for (const auto& [id, slot] : worker.slots) {
    if (slot.busy) lost.push_back(slot.run);
  }
  for (const v1::RunKey& key : lost) LoseRun(key, reason, now, effects);
  UnbindAll(name);
  // A stream that lingers is ended: the worker's next hello says what it still does, and it is told what to stop.
  if (worker.connected) effects.disconnect.push_back(name);
  worker.connected = false;
}

// Slots and groups

void Scheduler::ReleaseSlot(const v1::Run& run) {
  const auto worker = workers_.find(run.worker());
  if (worker == workers_.end()) return;
  const auto slot = worker->second.slots.find(run.slot());
  if (slot == worker->second.slots.end()) return;
  slot->second.busy = false;
  idle_.insert({run.worker(), run.slot()});
}

void Scheduler::Bind(const GroupKey& key, Group& group, const SlotKey& slot) {
  group.bound = slot;
  workers_.at(slot.first).slots.at(slot.second).bound.insert(key);
  unbound_.erase(key);
}

void Scheduler::Unbind(const GroupKey& key, Group& group) {
  const auto worker = workers_.find(group.bound.first);
  if (worker != workers_.end()) {
    const auto slot = worker->second.slots.find(group.bound.second);
    if (slot != worker->second.slots.end()) slot->second.bound.erase(key);
  }
  group.bound = {};
  if (group.waiting()) {
    unbound_.insert(key);
    try_all_slots_ = true;
  }
}

void Scheduler::UnbindAll(const std::string& name) {
  for (auto& [id, slot] : workers_.at(name).slots) {
    const std::set<GroupKey> bound = slot.bound;
    for (const GroupKey& key : bound) {
      Group& group = benchmarks_.at(key.first).groups[key.second];
      if (!group.active) Unbind(key, group);
    }
  }
}

void Scheduler::Schedule(int64_t now, Effects& effects) {
  if (try_all_slots_) {
    try_all_slots_ = false;
    for (const auto& [name, worker] : workers_) {
      for (const auto& [id, slot] : worker.slots) {
        if (!slot.busy) idle_.insert({name, id});
      }
    }
  }
  while (!idle_.empty()) {
    const SlotKey key = *idle_.begin();
    idle_.erase(idle_.begin());
    const auto worker = workers_.find(key.first);
    if (worker == workers_.end() || !worker->second.connected || worker->second.draining) continue;
    // A slot of a worker whose stream lingers after its lease: it takes nothing until it is heard of again.
    if (now - worker->second.heard > lease_ms_) continue;
    const auto slot = worker->second.slots.find(key.second);
    if (slot != worker->second.slots.end() && !slot->second.busy) FillSlot(key.first, slot->second, now, effects);
  }
}

bool Scheduler::FillSlot(const std::string& name, SlotState& slot, int64_t now, Effects& effects) {
  const WorkerState& worker = workers_.at(name);
  GroupKey best{UINT64_MAX, 0};
  for (const GroupKey& key : slot.bound) {
    const Group& group = benchmarks_.at(key.first).groups[key.second];
    if (group.waiting() && !group.active) {
      best = key;
      break;
    }
  }
  for (const GroupKey& key : unbound_) {
    if (key > best) break;
    const Entry& entry = benchmarks_.at(key.first);
    const Group& group = entry.groups[key.second];
    if (group.active || !Misfit(entry, group, worker, slot).empty()) continue;
    best = key;
    break;
  }
  if (best.first == UINT64_MAX) return false;
  Entry& entry = benchmarks_.at(best.first);
  Group& group = entry.groups[best.second];
  if (group.bound.first.empty()) Bind(best, group, {name, slot.slot.id()});
  Assign(entry, group, {name, slot.slot.id()}, slot, now, effects);
  return true;
}

void Scheduler::Assign(Entry& entry, Group& group, const SlotKey& key, SlotState& slot, int64_t now, Effects& effects) {
  uint32_t position = group.next;
  if (!group.returned.empty()) {
    position = *group.returned.begin();
    group.returned.erase(group.returned.begin());
  } else {
    ++group.next;
  }
  const v1::Job& job = entry.benchmark.jobs(static_cast<int>(group.first_job + position % group.jobs));
  const uint32_t repetition = position / group.jobs;
  v1::Run& run = RunAt(entry, job.runs(static_cast<int>(repetition)).key());
  run.set_state(v1::RUN_STATE_ASSIGNED);
  run.set_attempt(run.attempt() + 1);
  run.set_worker(key.first);
  run.set_slot(key.second);
  run.set_started_unix_ms(now);
  group.active = true;
  slot.busy = true;
  slot.run = run.key();
  --queued_;
  ++active_;
  if (entry.benchmark.state() == v1::BENCHMARK_STATE_QUEUED) {
    entry.benchmark.set_state(v1::BENCHMARK_STATE_RUNNING);
    effects.benchmarks.insert(entry.benchmark.id());
  }
  Changed(run, effects);
  effects.assign.push_back(
      {key.first, MakeStartRun(entry.benchmark.spec(), job, repetition, run.attempt(), key.second)});
}

std::string Scheduler::Misfit(const Entry& entry, const Group& group, const WorkerState& worker,
                              const SlotState& slot) const {
  const v1::SlotRequirements& needs = entry.benchmark.spec().requirements();
  if (needs.device_kind() != v1::DEVICE_KIND_UNSPECIFIED && needs.device_kind() != slot.slot.device_kind()) {
    return absl::StrCat("is a ", DeviceKindName(slot.slot.device_kind()), " device, needs ",
                        DeviceKindName(needs.device_kind()));
  }
  if (!absl::StrContains(absl::AsciiStrToLower(slot.slot.device_name()),
                         absl::AsciiStrToLower(needs.device_name_contains()))) {
    return absl::StrCat("is a ", slot.slot.device_name(), ", needs \"", needs.device_name_contains(), "\"");
  }
  if (slot.slot.memory_bytes() < needs.min_memory_bytes()) {
    return absl::StrFormat("has %.1f GB of memory, needs %.1f GB", static_cast<double>(slot.slot.memory_bytes()) / 1e9,
                           static_cast<double>(needs.min_memory_bytes()) / 1e9);
  }
  for (const auto& [label, value] : needs.labels()) {
    const auto found = worker.info.labels().find(label);
    if (found == worker.info.labels().end() || found->second != value) {
      return absl::StrCat("lacks the label ", label, "=", value);
    }
  }
  for (uint32_t i = 0; i < group.jobs; ++i) {
    const std::string& backend = entry.benchmark.jobs(static_cast<int>(group.first_job + i)).backend();
    if (!Offers(worker.info, backend, slot.slot.device_kind())) {
      return absl::StrCat("has no backend ", backend, " on ", DeviceKindName(slot.slot.device_kind()));
    }
  }
  return "";
}

// Answers

const v1::Benchmark* Scheduler::Find(uint64_t id) const {
  const auto found = benchmarks_.find(id);
  return found == benchmarks_.end() ? nullptr : &found->second.benchmark;
}

std::vector<v1::Benchmark> Scheduler::List(int limit, uint64_t before_id) const {
  std::vector<v1::Benchmark> result;
  auto it = before_id == 0 ? benchmarks_.end() : benchmarks_.lower_bound(before_id);
  while (it != benchmarks_.begin() && result.size() < static_cast<size_t>(limit)) {
    const v1::Benchmark& benchmark = (--it)->second.benchmark;
    v1::Benchmark& copy = result.emplace_back();
    copy.set_id(benchmark.id());
    *copy.mutable_spec() = benchmark.spec();
    copy.set_state(benchmark.state());
    copy.set_submitted_unix_ms(benchmark.submitted_unix_ms());
    copy.set_ended_unix_ms(benchmark.ended_unix_ms());
    copy.set_runs_total(benchmark.runs_total());
    copy.set_runs_ended(benchmark.runs_ended());
    copy.set_cancel_reason(benchmark.cancel_reason());
  }
  return result;
}

std::vector<v1::WorkerStatus> Scheduler::Workers() const {
  std::vector<v1::WorkerStatus> result;
  for (const auto& [name, worker] : workers_) {
    v1::WorkerStatus& status = result.emplace_back();
    *status.mutable_info() = worker.info;
    status.set_connected(worker.connected);
    status.set_draining(worker.draining);
    status.set_last_heard_unix_ms(worker.heard);
    for (const auto& [id, slot] : worker.slots) {
      if (!slot.busy) continue;
      v1::ActiveRun& active = *status.add_active();
      *active.mutable_run() = slot.run;
      active.set_slot(id);
      const v1::Benchmark& benchmark = *Find(slot.run.benchmark_id());
      active.set_attempt(benchmark.jobs(static_cast<int>(slot.run.job_index()))
                             .runs(static_cast<int>(slot.run.repetition()))
                             .attempt());
    }
  }
  return result;
}

std::vector<v1::Backend> Scheduler::Backends() const {
  std::vector<v1::Backend> result;
  for (const auto& [name, worker] : workers_) {
    if (!worker.connected) continue;
    for (const v1::Backend& backend : worker.info.backends()) {
      const auto same = [&backend](const v1::Backend& other) { return other.name() == backend.name(); };
      if (std::none_of(result.begin(), result.end(), same)) result.push_back(backend);
    }
  }
  return result;
}

Scheduler::Counts Scheduler::counts() const {
  Counts counts{.queued = queued_, .active = active_};
  for (const auto& [name, worker] : workers_) {
    if (!worker.connected) continue;
    ++counts.workers_connected;
    counts.slots += worker.slots.size();
  }
  return counts;
}

std::string Scheduler::ExplainGroup(const Entry& entry, const Group& group) const {
  if (!group.bound.first.empty()) {
    return absl::StrCat("its turn on ", group.bound.first, " ", group.bound.second,
                        " has not come (the runs of one shape go to one slot, one after another)");
  }
  std::vector<std::string> misfits;
  std::string busy;
  bool connected = false;
  for (const auto& [name, worker] : workers_) {
    if (!worker.connected) continue;
    connected = true;
    for (const auto& [id, slot] : worker.slots) {
      const std::string where = absl::StrCat(name, " ", id);
      const std::string misfit = worker.draining ? "is draining" : Misfit(entry, group, worker, slot);
      if (!misfit.empty()) {
        misfits.push_back(absl::StrCat(where, " ", misfit));
      } else if (slot.busy && busy.empty()) {
        busy = absl::StrCat(where, " with benchmark ", slot.run.benchmark_id());
      }
    }
  }
  if (!connected) return "no worker is connected";
  if (!busy.empty()) return absl::StrCat("every slot that fits is busy (", busy, ")");
  constexpr size_t kShown = 4;
  const size_t more = misfits.size() > kShown ? misfits.size() - kShown : 0;
  misfits.resize(misfits.size() - more);
  return absl::StrCat("no slot fits: ", absl::StrJoin(misfits, "; "),
                      more > 0 ? absl::StrCat(" (and ", more, " more)") : "");
}

std::vector<v1::Explanation> Scheduler::Explain(uint64_t id) const {
  std::vector<v1::Explanation> result;
  const auto found = benchmarks_.find(id);
  if (found == benchmarks_.end()) return result;
  const Entry& entry = found->second;
  for (const v1::Job& job : entry.benchmark.jobs()) {
    const Group& group = entry.groups[job.group()];
    int ended = 0;
    const v1::Run* active = nullptr;
    const v1::Run* last = nullptr;
    for (const v1::Run& run : job.runs()) {
      if (run.state() == v1::RUN_STATE_ENDED) {
        ++ended;
        last = &run;
      }
      if (IsActive(run)) active = &run;
    }
    v1::Explanation& explanation = result.emplace_back();
    explanation.set_job_index(job.index());
    explanation.set_backend(job.backend());
    *explanation.mutable_shape() = job.shape();
    std::string text = absl::StrCat(ended, " of ", job.runs_size(), " runs ended");
    if (last != nullptr && !last->worker().empty()) {
      absl::StrAppend(&text, ", the last on ", last->worker(), " ", last->slot(), ": ",
                      OutcomeLine(last->result().outcome(), ReasonLine(last->result())));
    }
    if (active != nullptr) {
      absl::StrAppend(&text, "; repetition ", active->key().repetition(), " is on ", active->worker(), " ",
                      active->slot(), ", attempt ", active->attempt());
    } else if (ended < job.runs_size()) {
      const std::string why = ExplainGroup(entry, group);
      absl::StrAppend(&text, "; waits: ", why);
      if (!group.active) explanation.set_waits(why);
    }
    explanation.set_text(text);
  }
  return result;
}

absl::Status Scheduler::CheckInvariants() const {
  uint64_t queued = 0;
  uint64_t active = 0;
  for (const auto& [id, entry] : benchmarks_) {
    uint32_t ended = 0;
    std::vector<uint64_t> group_active(entry.groups.size());
    std::vector<uint64_t> group_queued(entry.groups.size());
    for (const v1::Job& job : entry.benchmark.jobs()) {
      for (const v1::Run& run : job.runs()) {
        const std::string name = absl::StrCat("run ", FormatRunKey(run.key()));
        if (run.state() == v1::RUN_STATE_ENDED) {
          ++ended;
          if (run.result().outcome() == v1::OUTCOME_UNSPECIFIED) return absl::InternalError(name + " has no result");
        } else if (IsActive(run)) {
          ++group_active[job.group()];
          const auto worker = workers_.find(run.worker());
          if (worker == workers_.end()) return absl::InternalError(name + " is on a worker that does not exist");
          const auto slot = worker->second.slots.find(run.slot());
          if (slot == worker->second.slots.end() || !slot->second.busy || !SameKey(slot->second.run, run.key())) {
            return absl::InternalError(name + " is on a slot that does not hold it");
          }
        } else {
          ++group_queued[job.group()];
        }
      }
    }
    if (ended != entry.benchmark.runs_ended()) return absl::InternalError(absl::StrCat(id, ": runs_ended is wrong"));
    if ((ended == entry.benchmark.runs_total()) != IsOver(entry.benchmark)) {
      return absl::InternalError(absl::StrCat(id, ": over and not ended, or ended and not over"));
    }
    for (uint32_t i = 0; i < entry.groups.size(); ++i) {
      const Group& group = entry.groups[i];
      const std::string name = absl::StrCat("group ", id, "/", i);
      queued += group_queued[i];
      active += group_active[i];
      if (group_active[i] > 1) return absl::InternalError(name + " runs twice at once");
      if (group.active != (group_active[i] == 1)) return absl::InternalError(name + ": active is wrong");
      if (group_queued[i] != group.positions - group.next + group.returned.size()) {
        return absl::InternalError(name + " has lost a waiting run");
      }
      const bool in_queue = unbound_.contains({id, i});
      if (group.waiting() && group.bound.first.empty() && !in_queue) {
        return absl::InternalError(name + " waits and is in no queue");
      }
      if (in_queue && (!group.waiting() || !group.bound.first.empty())) {
        return absl::InternalError(name + " is in the queue for nothing");
      }
    }
  }
  if (queued != queued_ || active != active_) return absl::InternalError("queued or active are counted wrong");
  uint64_t busy = 0;
  for (const auto& [name, worker] : workers_) {
    for (const auto& [id, slot] : worker.slots) {
      busy += slot.busy ? 1 : 0;
      if (slot.busy || !worker.connected || worker.draining) continue;
      for (const GroupKey& key : slot.bound) {
        const Group& group = benchmarks_.at(key.first).groups[key.second];
        if (group.waiting() && !group.active && !idle_.contains({name, id})) {
          return absl::InternalError(absl::StrCat(name, " ", id, " is idle while its group waits"));
        }
      }
    }
  }
  if (busy != active_) return absl::InternalError("a slot holds a run that is not active");
  return absl::OkStatus();
}

}  // namespace attnfleet::server
