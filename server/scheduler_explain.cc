#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "proto/counted.h"
#include "proto/reason.h"
#include "proto/spec.h"
#include "server/scheduler.h"

namespace attnfleet::server {
namespace {

// A spec may have 100,000: a thousand of those would be gigabytes.
constexpr uint64_t kMostShapesListed = 100'000;

std::string Where(const Slot& slot) { return absl::StrCat(slot.worker->name(), " ", slot.info.id()); }

bool Contains(const std::vector<SlotKind*>& kinds, const SlotKind* kind) {
  return std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
}

// "a; b; c; d (and 3 more)"
std::string FirstOf(std::vector<std::string> reasons) {
  constexpr size_t kShown = 4;
  const size_t more = reasons.size() > kShown ? reasons.size() - kShown : 0;
  reasons.resize(reasons.size() - more);
  return absl::StrCat(absl::StrJoin(reasons, "; "), more > 0 ? absl::StrCat(" (and ", more, " more)") : "");
}

// Why a slot that fits takes nothing new; "" if it does.
std::string Unavailable(const Worker& worker) {
  if (!worker.connected) return "is not connected";
  if (worker.drained) return absl::StrCat("is drained (attnfleet workers undrain ", worker.name(), ")");
  return worker.draining ? "is draining" : "";
}

// Of a worker that has not come since the server started.
v1::WorkerStatus AbsentDrained(const std::string& name) {
  v1::WorkerStatus status;
  status.mutable_info()->set_name(name);
  status.set_drained(true);
  return status;
}

}  // namespace

std::optional<v1::Benchmark> Scheduler::Head(uint64_t id) const {
  const BenchmarkEntry* entry = FindEntry(id);
  if (entry == nullptr) return std::nullopt;
  return entry->Head();
}

std::optional<Picture> Scheduler::TakePicture(uint64_t id) {
  BenchmarkEntry* entry = FindEntry(id);
  if (entry == nullptr || entry->forgot_runs()) return std::nullopt;
  return entry->TakePicture();
}

std::vector<v1::Benchmark> Scheduler::List(int limit, uint64_t before_id) const {
  std::vector<v1::Benchmark> result;
  auto it = before_id == 0 ? benchmarks_.end() : benchmarks_.lower_bound(before_id);
  uint64_t shapes = 0;
  while (it != benchmarks_.begin() && result.size() < static_cast<size_t>(limit)) {
    const BenchmarkEntry& entry = *(--it)->second;
    shapes += entry.shapes();
    if (!result.empty() && shapes > kMostShapesListed) break;
    result.push_back(entry.Head());
  }
  return result;
}

v1::WorkerStatus Scheduler::StatusOf(const Worker& worker) const {
  v1::WorkerStatus status;
  *status.mutable_info() = worker.info;
  status.set_connected(worker.connected);
  status.set_draining(worker.draining);
  status.set_drained(worker.drained);
  status.set_last_heard_unix_ms(worker.heard);
  for (const auto& [id, slot] : worker.slots) {
    if (!slot->busy) continue;
    v1::ActiveRun& active = *status.add_active();
    *active.mutable_run() = slot->run;
    active.set_slot(id);
    active.set_attempt(FindRun(slot->run)->attempt());
  }
  return status;
}

std::vector<v1::WorkerStatus> Scheduler::Workers() const {
  std::vector<v1::WorkerStatus> result;
  for (const auto& [name, worker] : fleet_.workers()) result.push_back(StatusOf(*worker));
  for (const std::string& name : drained_) {
    if (fleet_.Find(name) == nullptr) result.push_back(AbsentDrained(name));
  }
  return result;
}

std::optional<v1::WorkerStatus> Scheduler::FindWorker(const std::string& name) const {
  if (const Worker* worker = fleet_.Find(name); worker != nullptr) return StatusOf(*worker);
  if (drained_.contains(name)) return AbsentDrained(name);
  return std::nullopt;
}

const std::vector<v1::Backend>& Scheduler::Backends() {
  if (std::exchange(backends_known_, true)) return backends_;
  backends_.clear();
  std::set<std::string> seen;
  for (const auto& [name, worker] : fleet_.workers()) {
    if (!worker->connected) continue;
    for (const v1::Backend& backend : worker->info.backends()) {
      if (seen.insert(backend.name()).second) backends_.push_back(backend);
    }
  }
  return backends_;
}

// Why no slot of the whole fleet takes a lane that is bound to none.
WaitReasons::Lane Scheduler::ExplainClass(const BenchmarkEntry& entry, const BenchmarkEntry::Filing& filing) const {
  WorkClass& work_class = *filing.work_class;
  std::vector<std::string> misfits;
  std::string busy;
  bool shunned = false;  // a slot would do but for the crash
  bool connected = false;
  std::string more;  // who has more than a slot that would do; such a slot may fit by itself, once that one is gone
  for (const auto& [name, worker] : fleet_.workers()) {
    if (!worker->connected) continue;
    connected = true;
    for (const auto& [id, slot] : worker->slots) {
      std::string misfit = Unavailable(*worker);
      if (misfit.empty()) misfit = Misfit(work_class, filing.need.wanted, *slot->kind);
      if (misfit.empty() && !Contains(work_class.kinds, slot->kind)) {
        if (more.empty()) more = WhoHasMore(work_class);  // looks at the whole fleet, so once
        misfit = absl::StrCat("has ", BackendNames(work_class, slot->kind->OfferTo(work_class)), " alone, and ", more);
      }
      if (!misfit.empty()) {
        misfits.push_back(absl::StrCat(Where(*slot), " ", misfit));
      } else if (!WorkQueue::MayTake(work_class, *slot)) {
        shunned = true;
      } else if (slot->busy && busy.empty()) {
        busy = absl::StrCat(Where(*slot), " with benchmark ", slot->run.benchmark_id());
      }
    }
  }
  if (!connected) return {.why = "no worker is connected"};
  if (work_class.open() && work_class.slots > 0) {
    std::string text = absl::StrCat("every ", shunned ? "other " : "", "slot that fits is busy (", busy, ")");
    if (shunned) {
      const std::set<std::string>& shuns = filing.need.shuns;
      text = absl::StrCat("its last attempt", shuns.size() == 1 ? "" : "s", " crashed on ", absl::StrJoin(shuns, ", "),
                          "; it waits for another slot, and ", text);
    }
    if (entry.every() || !filing.queued) return {.why = text};
    const WorkQueue::Candidate next = WorkQueue::BestOf(work_class);
    if (next.rank.benchmark == entry.id()) return {.why = absl::StrCat(text, "; it is next")};
    const BenchmarkEntry& first = *FindEntry(next.rank.benchmark);
    absl::StrAppend(&text, "; benchmark ", first.id(), " goes first: ");
    if (first.priority() != entry.priority()) {
      absl::StrAppend(&text, "its priority is ", first.priority(), ", this one's ", entry.priority());
    } else if (first.submitter != entry.submitter) {
      absl::StrAppend(&text, first.submitter->name, " has ", Counted(first.submitter->running, "slot"), ", ",
                      entry.submitter->name, " has ", entry.submitter->running);
    } else {
      absl::StrAppend(&text, "it is older");
    }
    return {.why = text};
  }
  const std::string list = FirstOf(std::move(misfits));
  if (work_class.open() || work_class.least_slots() == 1) {
    return {.why = absl::StrCat("no slot fits: ", list), .unfit = more.empty()};
  }
  return {.why = absl::StrCat(Counted(work_class.able, "slot"), work_class.able == 1 ? " fits" : " fit",
                              " and it needs ", work_class.least_slots(), " (count)", list.empty() ? "" : ": ", list),
          .unfit = true};
}

std::string Scheduler::WhoHasMore(const WorkClass& work_class) const {
  if (queue_.gathering()) return "workers that have more may be coming back";
  for (const auto& [name, worker] : fleet_.workers()) {
    for (const auto& [id, slot] : worker->slots) {
      if (slot->kind == nullptr || !Contains(work_class.kinds, slot->kind)) continue;
      const std::string unavailable = Unavailable(*worker);
      return absl::StrCat(Where(*slot), " has more",
                          unavailable.empty() ? "" : absl::StrCat(", which ", unavailable, " and may be back"));
    }
  }
  return "another has more";
}

std::string Scheduler::ExplainMissing(const WorkClass& work_class, uint32_t backend) const {
  const BackendSet wanted = BackendSet{1} << backend;
  std::vector<std::string> misfits;
  for (const auto& [name, worker] : fleet_.workers()) {
    if (!worker->connected) continue;
    for (const auto& [id, slot] : worker->slots) {
      const std::string unavailable = Unavailable(*worker);
      misfits.push_back(
          absl::StrCat(Where(*slot), " ", unavailable.empty() ? Misfit(work_class, wanted, *slot->kind) : unavailable));
    }
  }
  return absl::StrCat("no slot offers ", BackendNames(work_class, wanted), ": ", FirstOf(std::move(misfits)));
}

std::string Scheduler::ExplainLane(const BenchmarkEntry& entry, uint32_t index) const {
  if (entry.paused()) return absl::StrCat("it is paused (attnfleet resume ", entry.id(), ")");
  if (entry.every() && !entry.placed() && fleet_returns_) {
    return "it waits for the workers to come back after the restart, for it is placed on all slots that fit";
  }
  const Lane* lane = entry.FindLane(index);
  if (lane != nullptr && lane->slot != nullptr) {
    const Slot& slot = *lane->slot;
    if (const std::string reason = Unavailable(*slot.worker); !reason.empty()) {
      return absl::StrCat("its slot, ", Where(slot), ", ", reason,
                          entry.every() ? absl::StrCat(" (placement every: it can go nowhere else; attnfleet cancel ",
                                                       entry.id(), " keeps what was measured and ends the rest)")
                          : !slot.worker->connected ? "; unless it is back in time, another slot takes over"
                                                    : "; another slot takes over once its run has ended");
    }
    if (lane->admitted) {
      return absl::StrCat(
          "its turn on ", Where(slot), " comes", slot.busy ? absl::StrCat(" after run ", FormatRunKey(slot.run)) : "",
          " (", entry.every() ? "placement every" : "the runs of one shape go to one slot", ", one after another)");
    }
  }
  if (!entry.MayAdmit() && entry.every()) {
    return absl::StrCat(Counted(entry.admitted, "other node"), entry.admitted == 1 ? " goes" : " go",
                        " first, as many as its max_slots allows at once");
  }
  if (!entry.MayAdmit()) {
    return absl::StrCat("it holds ", Counted(entry.admitted, "slot"), ", as many as its max_slots allows");
  }
  return "";
}

WaitReasons Scheduler::WhyItWaits(uint64_t id) const {
  const BenchmarkEntry& entry = *FindEntry(id);
  WaitReasons reasons;
  if (entry.over()) return reasons;
  // The same for every lane that is bound to no slot and wants the same; looks at the whole fleet, so once.
  std::map<Need, WaitReasons::Lane> of_filings;
  for (uint32_t index = 0; index < std::max<uint32_t>(entry.lane_count(), 1); ++index) {
    WaitReasons::Lane& reason = reasons.lanes.emplace_back();
    const Lane* lane = entry.FindLane(index);
    const bool begun = entry.every() ? entry.placed() : index < entry.next_lane;
    if (lane == nullptr && begun) continue;
    reason.active = lane != nullptr && lane->active;
    if (reason.active) reason.away = !lane->slot->worker->connected;
    if (lane != nullptr && entry.Wants(*lane) == 0) continue;
    if (lane != nullptr && lane->slot != nullptr) {
      reason.elsewhere = entry.all_backends() & ~RunnableOn(entry, *lane->slot);
      reason.slot = Where(*lane->slot);
    }
    reason.why = ExplainLane(entry, index);
    if (!reason.why.empty()) continue;
    const auto filing = std::find_if(entry.filings.begin(), entry.filings.end(), [&](const auto& one) {
      return one.need == (lane == nullptr ? entry.first_need() : lane->filed);
    });
    const auto [known, is_new] = of_filings.try_emplace(filing->need);
    if (is_new) known->second = ExplainClass(entry, *filing);
    reason.why = known->second.why;
    reason.unfit = known->second.unfit;
  }
  // Where nothing at all can run, the lanes say why.
  const BackendSet offered = entry.work_class().offered();
  if (counts_.workers_connected == 0 || offered == 0 || entry.every() || entry.paused()) return reasons;
  reasons.unoffered.resize(entry.backends());
  for (uint32_t backend = 0; backend < entry.backends(); ++backend) {
    if (((offered >> backend) & 1) == 0) reasons.unoffered[backend] = ExplainMissing(entry.work_class(), backend);
  }
  return reasons;
}

std::vector<v1::Explanation> Explain(const v1::Benchmark& benchmark, const WaitReasons& reasons) {
  std::vector<v1::Explanation> result;
  const bool every = benchmark.spec().placement() == v1::PLACEMENT_EVERY;
  const int shapes = benchmark.spec().shapes_size();
  const int64_t deadline = DeadlineOf(benchmark);
  for (const v1::Job& job : benchmark.jobs()) {
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
    if (job.has_node()) *explanation.mutable_node() = job.node();
    std::string text = absl::StrCat(ended, " of ", job.runs_size(), " runs ended");
    if (last != nullptr) {
      absl::StrAppend(&text, ", the last ");
      if (!last->worker().empty()) absl::StrAppend(&text, "on ", last->worker(), " ", last->slot(), ": ");
      absl::StrAppend(&text, OutcomeLine(last->result().outcome(), ReasonLine(last->result())));
    }
    for (const v1::Run& run : job.runs()) {
      if (!run.quarantined() || &run == last) continue;
      absl::StrAppend(&text, "; repetition ", run.key().repetition(), " is ", run.result().reason());
    }
    // A group's jobs are one lane; with PLACEMENT_EVERY all groups of a node are. What is over has none, though in a
    // damaged store it may have runs that have not ended.
    const uint32_t index = job.group() / (every ? static_cast<uint32_t>(shapes) : 1);
    const WaitReasons::Lane lane = index < reasons.lanes.size() ? reasons.lanes[index] : WaitReasons::Lane{};
    const uint32_t backend = job.index() % static_cast<uint32_t>(benchmark.spec().backends_size());
    if (active != nullptr) {
      const std::string where = absl::StrCat(active->worker(), " ", active->slot());
      absl::StrAppend(&text, "; repetition ", active->key().repetition());
      if (lane.away) {
        absl::StrAppend(&text, ", attempt ", active->attempt(), ", was on ", where,
                        ", which is not connected: unless it comes back in time, the attempt is lost");
      } else {
        absl::StrAppend(&text, " is on ", where, ", attempt ", active->attempt());
      }
    } else if (ended < job.runs_size()) {
      const bool offered = reasons.unoffered.empty() || reasons.unoffered[backend].empty();
      std::string why = lane.why;
      if (!offered) {
        why = reasons.unoffered[backend];
      } else if (((lane.elsewhere >> backend) & 1) != 0) {
        why = absl::StrCat("the rest of its group is on ", lane.slot, ", which lacks it; it follows on another slot");
      }
      absl::StrAppend(&text, "; waits: ", why);
      if (!offered || !lane.active) {
        explanation.set_waits(why);
        explanation.set_unfit(!offered || lane.unfit);
      }
    }
    if (ended < job.runs_size() && deadline > 0) {
      absl::StrAppend(&text, "; its deadline is ",
                      absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", absl::FromUnixMillis(deadline), absl::UTCTimeZone()));
    }
    explanation.set_text(text);
  }
  return result;
}

}  // namespace attnfleet::server
