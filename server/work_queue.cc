#include "server/work_queue.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "proto/spec.h"

namespace attnfleet::server {
namespace {

// Length first, so that no two lists of texts give the same key.
void AppendText(std::string& key, const std::string& text) { absl::StrAppend(&key, text.size(), ":", text, ","); }

std::string ClassKey(const v1::BenchmarkSpec& spec, const Need& need) {
  const v1::SlotRequirements& needs = spec.requirements();
  std::string key =
      absl::StrCat(static_cast<int>(needs.device_kind()), ",", needs.min_memory_bytes(), ",", needs.count(), ",");
  AppendText(key, needs.device_name_contains());
  const std::map<std::string, std::string> labels(needs.labels().begin(), needs.labels().end());
  for (const auto& [label, value] : labels) {
    AppendText(key, label);
    AppendText(key, value);
  }
  key += ";";
  for (const std::string& backend : spec.backends()) AppendText(key, backend);  // in their order, as in a BackendSet
  absl::StrAppend(&key, ";", need.wanted, ",", static_cast<int>(spec.training().step()), ";");
  for (const std::string& worker : need.shuns) AppendText(key, worker);
  return key;
}

constexpr BackendSet kAnyBackend = ~BackendSet{0};

template <typename T>
void Drop(std::vector<T*>& list, const T* one) {
  list.erase(std::remove(list.begin(), list.end(), one), list.end());
}

}  // namespace

SlotKind KindOf(const Slot& slot) {
  const v1::WorkerInfo& worker = slot.worker->info;
  SlotKind kind;
  kind.slot = slot.info;
  kind.labels.insert(worker.labels().begin(), worker.labels().end());
  for (const v1::Backend& backend : worker.backends()) {
    const auto& devices = backend.devices();
    if (std::find(devices.begin(), devices.end(), slot.info.device_kind()) != devices.end()) {
      kind.backends.insert(backend.name());
    }
  }
  kind.steps = {v1::TRAINING_STEP_UNSPECIFIED, v1::TRAINING_STEP_REFERENCE};
  for (const int step : worker.steps()) {
    if (v1::TrainingStep_IsValid(step)) kind.steps.insert(step);  // others are a newer worker's
  }
  kind.key = absl::StrCat(static_cast<int>(kind.slot.device_kind()), ",", kind.slot.memory_bytes(), ",");
  AppendText(kind.key, kind.slot.device_name());
  for (const auto& [label, value] : kind.labels) {
    AppendText(kind.key, label);
    AppendText(kind.key, value);
  }
  kind.key += ";";
  for (const std::string& backend : kind.backends) AppendText(kind.key, backend);
  absl::StrAppend(&kind.key, ";", absl::StrJoin(kind.steps, ","));
  return kind;
}

BackendSet SlotKind::OfferTo(WorkClass& work_class) const {
  const auto found = offers.find(&work_class);
  return found == offers.end() ? 0 : found->second;
}

BackendSet WorkClass::offered() const {
  BackendSet all = 0;
  for (const auto& [set, same] : offers) all |= set;
  return all;
}

std::string Misfit(const WorkClass& work_class, BackendSet wanted, const SlotKind& kind) {
  const v1::SlotRequirements& needs = work_class.requirements;
  if (needs.device_kind() != v1::DEVICE_KIND_UNSPECIFIED && needs.device_kind() != kind.slot.device_kind()) {
    return absl::StrCat("is a ", DeviceKindName(kind.slot.device_kind()), " device, needs ",
                        DeviceKindName(needs.device_kind()));
  }
  if (!absl::StrContains(absl::AsciiStrToLower(kind.slot.device_name()),
                         absl::AsciiStrToLower(needs.device_name_contains()))) {
    return absl::StrCat("has the device ", kind.slot.device_name(), ", needs \"", needs.device_name_contains(), "\"");
  }
  if (kind.slot.memory_bytes() < needs.min_memory_bytes()) {
    return absl::StrFormat("has %.1f GB of memory, needs %.1f GB", static_cast<double>(kind.slot.memory_bytes()) / 1e9,
                           static_cast<double>(needs.min_memory_bytes()) / 1e9);
  }
  for (const auto& [label, value] : needs.labels()) {
    const auto found = kind.labels.find(label);
    if (found == kind.labels.end() || found->second != value) {
      return absl::StrCat("lacks the label ", label, "=", value);
    }
  }
  if ((BackendsOn(work_class, kind) & wanted) == 0) {
    return absl::StrCat("has no backend ", BackendNames(work_class, wanted), " on ",
                        DeviceKindName(kind.slot.device_kind()));
  }
  // It would measure the reference and say nothing.
  if (!kind.steps.contains(work_class.step)) {
    return absl::StrCat("does not announce the step ", TrainingStepName(work_class.step), "; a newer worker does");
  }
  return "";
}

BackendSet BackendsOn(const WorkClass& work_class, const SlotKind& kind) {
  BackendSet set = 0;
  for (size_t i = 0; i < work_class.backends.size(); ++i) {
    if (kind.backends.contains(work_class.backends[i])) set |= BackendSet{1} << i;
  }
  return set;
}

std::string BackendNames(const WorkClass& work_class, BackendSet set) {
  std::vector<std::string> names;
  for (size_t i = 0; i < work_class.backends.size(); ++i) {
    if (((set >> i) & 1) != 0) names.push_back(work_class.backends[i]);
  }
  return absl::StrJoin(names, ", ");
}

WorkClass* WorkQueue::UseClass(const v1::BenchmarkSpec& spec, const Need& need) {
  std::string key = ClassKey(spec, need);
  std::unique_ptr<WorkClass>& work_class = classes_[key];
  if (work_class == nullptr) {
    work_class = std::make_unique<WorkClass>();
    work_class->key = std::move(key);
    work_class->requirements = spec.requirements();
    work_class->backends.assign(spec.backends().begin(), spec.backends().end());
    work_class->need = need;
    work_class->step = spec.training().step();
    for (const auto& [name, kind] : kinds_) Match(*work_class, *kind);
  }
  ++work_class->benchmarks;
  return work_class.get();
}

void WorkQueue::ReleaseClass(WorkClass* work_class) {
  if (--work_class->benchmarks > 0) return;
  for (const auto& [key, kind] : kinds_) {
    kind->offers.erase(work_class);
    kind->classes.erase(work_class);
  }
  Drop(changed_, work_class);
  classes_.erase(classes_.find(work_class->key));
}

void WorkQueue::Match(WorkClass& work_class, SlotKind& kind) {
  if (!Misfit(work_class, kAnyBackend, kind).empty()) return;
  const BackendSet set = BackendsOn(work_class, kind) & work_class.need.wanted;
  kind.offers[&work_class] = set;
  work_class.able += static_cast<uint32_t>(kind.slots.size());
  if (set == 0) return;
  std::vector<SlotKind*>& same = work_class.offers[set];
  same.push_back(&kind);
  if (same.size() == 1) {
    Relink(work_class);
  } else if (IsBestOffer(work_class, set)) {
    Link(work_class, kind);
  }
}

void WorkQueue::Unmatch(WorkClass& work_class, SlotKind& kind, BackendSet set) {
  const auto same = work_class.offers.find(set);
  Drop(same->second, &kind);
  Drop(work_class.kinds, &kind);
  if (!same->second.empty()) return;
  work_class.offers.erase(same);
  Relink(work_class);
}

bool WorkQueue::IsBestOffer(const WorkClass& work_class, BackendSet set) const {
  if (gathering_) return set == work_class.need.wanted;
  const auto has_more = [set](const auto& other) { return other.first != set && (other.first & set) == set; };
  return std::none_of(work_class.offers.begin(), work_class.offers.end(), has_more);
}

void WorkQueue::Link(WorkClass& work_class, SlotKind& kind) {
  work_class.kinds.push_back(&kind);
  work_class.slots += static_cast<uint32_t>(kind.slots.size());
  kind.classes.insert(&work_class);
}

void WorkQueue::Relink(WorkClass& work_class) {
  for (SlotKind* kind : std::exchange(work_class.kinds, {})) kind->classes.erase(&work_class);
  work_class.slots = 0;
  for (const auto& [set, kinds] : work_class.offers) {
    if (!IsBestOffer(work_class, set)) continue;
    for (SlotKind* kind : kinds) Link(work_class, *kind);
  }
  if (work_class.open()) MarkChanged(work_class);
}

void WorkQueue::SetGathering(bool gathering) {
  if (std::exchange(gathering_, gathering) == gathering) return;
  for (const auto& [key, work_class] : classes_) Relink(*work_class);
}

Submitter* WorkQueue::UseSubmitter(const std::string& name) {
  std::unique_ptr<Submitter>& submitter = submitters_[name];
  if (submitter == nullptr) {
    submitter = std::make_unique<Submitter>();
    submitter->name = name;
    submitter->serial = next_submitter_++;
  }
  ++submitter->benchmarks;
  return submitter.get();
}

void WorkQueue::ReleaseSubmitter(Submitter* submitter) {
  if (--submitter->benchmarks == 0) submitters_.erase(submitters_.find(submitter->name));
}

SlotKind* WorkQueue::UseKind(SlotKind kind) {
  std::unique_ptr<SlotKind>& known = kinds_[kind.key];
  if (known == nullptr) {
    known = std::make_unique<SlotKind>(std::move(kind));
    for (const auto& [name, work_class] : classes_) Match(*work_class, *known);
  }
  ++known->members;
  return known.get();
}

void WorkQueue::ReleaseKind(SlotKind* kind) {
  if (--kind->members > 0) return;
  for (const auto& [work_class, set] : kind->offers) {
    if (set != 0) Unmatch(*work_class, *kind, set);
  }
  kinds_.erase(kinds_.find(kind->key));
}

bool WorkQueue::AddSlot(Slot& slot) {
  SlotKind kind = KindOf(slot);
  if (slot.kind != nullptr && slot.kind->key == kind.key) return false;
  RemoveSlot(slot);
  slot.kind = UseKind(std::move(kind));
  return true;
}

void WorkQueue::RemoveSlot(Slot& slot) {
  if (slot.kind == nullptr) return;
  SetTakes(slot, false);
  ReleaseKind(std::exchange(slot.kind, nullptr));
}

void WorkQueue::SetTakes(Slot& slot, bool takes) {
  if (slot.takes == takes) return;
  slot.takes = takes;
  if (!takes) {
    slot.kind->slots.erase(&slot);
    slot.kind->idle.erase(&slot);
    for (WorkClass* work_class : slot.kind->classes) {
      --work_class->slots;
      if (!work_class->need.shuns.empty()) MarkChanged(*work_class);  // it may have been the last other
    }
    for (const auto& [work_class, set] : slot.kind->offers) --work_class->able;
    return;
  }
  slot.kind->slots.insert(&slot);
  if (!slot.busy) slot.kind->idle.insert(&slot);
  for (WorkClass* work_class : slot.kind->classes) ++work_class->slots;
  for (const auto& [work_class, set] : slot.kind->offers) {
    const bool was_open = work_class->open();
    ++work_class->able;
    if (!was_open && work_class->open()) MarkChanged(*work_class);
  }
}

void WorkQueue::SetBusy(Slot& slot, bool busy) {
  slot.busy = busy;
  if (!slot.takes) return;
  if (busy) {
    slot.kind->idle.erase(&slot);
  } else {
    slot.kind->idle.insert(&slot);
  }
}

void WorkQueue::MarkChanged(WorkClass& work_class) {
  if (!std::exchange(work_class.changed, true)) changed_.push_back(&work_class);
}

void WorkQueue::File(WorkClass& work_class, int priority, WorkClass::Level& level, Submitter& submitter) {
  const WorkClass::Share share{submitter.running, submitter.served, submitter.serial, &submitter};
  level.waiting[&submitter].filed = share;
  level.order.insert(share);
  submitter.waits.insert({share.running, share.served, &work_class, priority});
}

void WorkQueue::Unfile(WorkClass& work_class, int priority, WorkClass::Level& level, const WorkClass::Share& filed) {
  filed.submitter->waits.erase({filed.running, filed.served, &work_class, priority});
  level.order.erase(filed);
}

void WorkQueue::Push(WorkClass& work_class, Submitter& submitter, int priority, uint64_t benchmark) {
  WorkClass::Level& level = work_class.levels[priority];
  if (!level.waiting.contains(&submitter)) File(work_class, priority, level, submitter);
  level.waiting[&submitter].benchmarks.insert(benchmark);
  MarkChanged(work_class);
}

void WorkQueue::Remove(WorkClass& work_class, Submitter& submitter, int priority, uint64_t benchmark) {
  const auto level = work_class.levels.find(priority);
  const auto waiting = level->second.waiting.find(&submitter);
  waiting->second.benchmarks.erase(benchmark);
  if (!waiting->second.benchmarks.empty()) return;
  Unfile(work_class, priority, level->second, waiting->second.filed);
  level->second.waiting.erase(waiting);
  if (level->second.order.empty()) work_class.levels.erase(level);
}

void WorkQueue::AddRunning(Submitter& submitter, int change) {
  submitter.running += static_cast<uint64_t>(change);
  // Nowhere more than it has: only where it was put right since it last had so few.
  while (!submitter.waits.empty()) {
    const Submitter::Wait most = *submitter.waits.rbegin();
    if (std::tie(most.running, most.served) <= std::tie(submitter.running, submitter.served)) return;
    WorkClass::Level& level = most.work_class->levels.at(most.priority);
    Unfile(*most.work_class, most.priority, level, level.waiting.at(&submitter).filed);
    File(*most.work_class, most.priority, level, submitter);
  }
}

void WorkQueue::Serve(Submitter& submitter) { submitter.served = ++served_; }

WorkQueue::Candidate WorkQueue::BestOf(WorkClass& work_class) {
  if (work_class.levels.empty() || !work_class.open()) return {};
  auto& [priority, level] = *work_class.levels.begin();
  for (;;) {
    const WorkClass::Share first = *level.order.begin();
    const Submitter& submitter = *first.submitter;
    if (first.running == submitter.running && first.served == submitter.served) {
      return {&work_class,
              {priority, first.running, first.served, *level.waiting.at(first.submitter).benchmarks.begin(),
               work_class.need.wanted, work_class.need.shuns}};
    }
    Unfile(work_class, priority, level, first);
    File(work_class, priority, level, *first.submitter);
  }
}

WorkQueue::Candidate WorkQueue::Best(const Slot& slot) const {
  Candidate best;
  for (WorkClass* work_class : slot.kind->classes) {
    if (!MayTake(*work_class, slot)) continue;
    const Candidate candidate = BestOf(*work_class);
    if (candidate.work_class == nullptr) continue;
    if (best.work_class == nullptr || candidate.rank < best.rank) best = candidate;
  }
  return best;
}

bool WorkQueue::MayTake(const WorkClass& work_class, const Slot& slot) {
  const std::set<std::string>& shuns = work_class.need.shuns;
  if (!shuns.contains(slot.worker->name())) return true;
  const auto is_other = [&shuns](const Slot* one) { return !shuns.contains(one->worker->name()); };
  return std::ranges::none_of(work_class.kinds,
                              [&](const SlotKind* kind) { return std::ranges::any_of(kind->slots, is_other); });
}

Slot* WorkQueue::FindIdle(const WorkClass& work_class, const std::string& avoid) {
  Slot* found = nullptr;
  const auto rank = [&avoid](const Slot& slot) { return std::pair(slot.worker->name() == avoid, slot.crashed); };
  for (const SlotKind* kind : work_class.kinds) {
    for (Slot* slot : kind->idle) {
      if (!MayTake(work_class, *slot)) continue;
      if (found == nullptr || rank(*slot) < rank(*found)) found = slot;
      if (slot->worker->name() != avoid) break;  // the kind has no better one
    }
  }
  return found;
}

absl::Status WorkQueue::CheckNothingIdles() const {
  for (const auto& [key, work_class] : classes_) {
    if (work_class->levels.empty() || !work_class->open()) continue;
    // The last slot on another worker has just gone: the next event gives those back that it shuns.
    if (!work_class->need.shuns.empty() && work_class->changed) continue;
    const Slot* slot = FindIdle(*work_class, "");
    if (slot == nullptr) continue;
    return absl::InternalError(absl::StrCat(slot->worker->name(), " ", slot->info.id(), " is idle while benchmark ",
                                            BestOf(*work_class).rank.benchmark, " waits for one like it"));
  }
  return absl::OkStatus();
}

// Of each other the two know what they would if they met now.
absl::Status WorkQueue::CheckPair(WorkClass& work_class, const SlotKind& kind) const {
  const auto offer = [&](const SlotKind& other) {
    return Misfit(work_class, work_class.need.wanted, other).empty()
               ? BackendsOn(work_class, other) & work_class.need.wanted
               : 0;
  };
  const BackendSet set = offer(kind);
  if (kind.OfferTo(work_class) != set) return absl::InternalError("a kind offers a class something else than it says");
  bool fits = set != 0 && (!gathering_ || set == work_class.need.wanted);
  for (const auto& [key, other] : kinds_) {
    if (const BackendSet theirs = offer(*other); theirs != set && (theirs & set) == set) fits = false;
  }
  const bool listed = std::ranges::find(work_class.kinds, &kind) != work_class.kinds.end();
  if (kind.classes.contains(&work_class) != fits || listed != fits) {
    return absl::InternalError("a class and a kind that fit do not know each other, or the reverse");
  }
  return absl::OkStatus();
}

absl::Status WorkQueue::Check() const {
  for (const auto& [key, work_class] : classes_) {
    uint32_t slots = 0;
    for (const SlotKind* kind : work_class->kinds) slots += static_cast<uint32_t>(kind->slots.size());
    if (slots != work_class->slots) return absl::InternalError("a class counts its slots wrong: " + key);
    uint32_t able = 0;
    for (const auto& [name, kind] : kinds_) {
      if (Misfit(*work_class, kAnyBackend, *kind).empty()) able += static_cast<uint32_t>(kind->slots.size());
    }
    if (able != work_class->able) return absl::InternalError("a class counts wrong what is able: " + key);
    for (const auto& [priority, level] : work_class->levels) {
      if (level.order.size() != level.waiting.size()) return absl::InternalError("a share is missing in " + key);
      for (const WorkClass::Share& share : level.order) {
        const Submitter& submitter = *share.submitter;
        if (std::tie(share.running, share.served) > std::tie(submitter.running, submitter.served)) {
          return absl::InternalError(absl::StrCat("the share of ", submitter.name, " is less than what is filed"));
        }
        if (!submitter.waits.contains({share.running, share.served, work_class.get(), priority})) {
          return absl::InternalError(
              absl::StrCat("the share of ", submitter.name, " is filed otherwise than it knows"));
        }
      }
    }
  }
  for (const auto& [key, kind] : kinds_) {
    for (const auto& [name, work_class] : classes_) {
      if (absl::Status status = CheckPair(*work_class, *kind); !status.ok()) return status;
    }
    for (const Slot* slot : kind->slots) {
      if (slot->busy == kind->idle.contains(const_cast<Slot*>(slot))) {
        return absl::InternalError(slot->info.id() + " is idle and busy, or neither");
      }
    }
  }
  return CheckNothingIdles();
}

}  // namespace attnfleet::server
