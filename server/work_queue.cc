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

std::string ClassKey(const v1::BenchmarkSpec& spec) {
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
  const std::set<std::string> backends(spec.backends().begin(), spec.backends().end());
  for (const std::string& backend : backends) AppendText(key, backend);
  absl::StrAppend(&key, ";", static_cast<int>(spec.training().step()));
  return key;
}

void Drop(std::vector<WorkClass*>& classes, const WorkClass* work_class) {
  classes.erase(std::remove(classes.begin(), classes.end(), work_class), classes.end());
}

void Drop(std::vector<SlotKind*>& kinds, const SlotKind* kind) {
  kinds.erase(std::remove(kinds.begin(), kinds.end(), kind), kinds.end());
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

std::string Misfit(const WorkClass& work_class, const SlotKind& kind) {
  const v1::SlotRequirements& needs = work_class.requirements;
  if (needs.device_kind() != v1::DEVICE_KIND_UNSPECIFIED && needs.device_kind() != kind.slot.device_kind()) {
    return absl::StrCat("is a ", DeviceKindName(kind.slot.device_kind()), " device, needs ",
                        DeviceKindName(needs.device_kind()));
  }
  if (!absl::StrContains(absl::AsciiStrToLower(kind.slot.device_name()),
                         absl::AsciiStrToLower(needs.device_name_contains()))) {
    return absl::StrCat("is a ", kind.slot.device_name(), ", needs \"", needs.device_name_contains(), "\"");
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
  for (const std::string& backend : work_class.backends) {
    if (!kind.backends.contains(backend)) {
      return absl::StrCat("has no backend ", backend, " on ", DeviceKindName(kind.slot.device_kind()));
    }
  }
  // It would measure the reference and say nothing.
  if (!kind.steps.contains(work_class.step)) {
    return absl::StrCat("does not know the step ", TrainingStepName(work_class.step), "; a newer worker does");
  }
  return "";
}

WorkClass* WorkQueue::UseClass(const v1::BenchmarkSpec& spec) {
  std::string key = ClassKey(spec);
  std::unique_ptr<WorkClass>& work_class = classes_[key];
  if (work_class == nullptr) {
    work_class = std::make_unique<WorkClass>();
    work_class->key = std::move(key);
    work_class->requirements = spec.requirements();
    work_class->backends.assign(spec.backends().begin(), spec.backends().end());
    work_class->step = spec.training().step();
    for (const auto& [name, kind] : kinds_) {
      if (!Misfit(*work_class, *kind).empty()) continue;
      work_class->kinds.push_back(kind.get());
      kind->classes.push_back(work_class.get());
      work_class->slots += static_cast<uint32_t>(kind->slots.size());
    }
  }
  ++work_class->benchmarks;
  return work_class.get();
}

void WorkQueue::ReleaseClass(WorkClass* work_class) {
  if (--work_class->benchmarks > 0) return;
  for (SlotKind* kind : work_class->kinds) Drop(kind->classes, work_class);
  Drop(changed_, work_class);
  classes_.erase(classes_.find(work_class->key));
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

SlotKind* WorkQueue::UseKind(const Slot& slot) {
  SlotKind kind = KindOf(slot);
  std::unique_ptr<SlotKind>& known = kinds_[kind.key];
  if (known == nullptr) {
    known = std::make_unique<SlotKind>(std::move(kind));
    for (const auto& [name, work_class] : classes_) {
      if (!Misfit(*work_class, *known).empty()) continue;
      known->classes.push_back(work_class.get());
      work_class->kinds.push_back(known.get());
    }
  }
  return known.get();
}

void WorkQueue::ReleaseKind(SlotKind* kind) {
  if (!kind->slots.empty()) return;
  for (WorkClass* work_class : kind->classes) Drop(work_class->kinds, kind);
  kinds_.erase(kinds_.find(kind->key));
}

void WorkQueue::AddSlot(Slot& slot) {
  if (slot.kind != nullptr) return;
  slot.kind = UseKind(slot);
  slot.kind->slots.insert(&slot);
  if (!slot.busy) slot.kind->idle.insert(&slot);
  for (WorkClass* work_class : slot.kind->classes) {
    const bool was_open = work_class->open();
    ++work_class->slots;
    if (!was_open && work_class->open()) MarkChanged(*work_class);
  }
}

void WorkQueue::RemoveSlot(Slot& slot) {
  if (slot.kind == nullptr) return;
  slot.kind->slots.erase(&slot);
  slot.kind->idle.erase(&slot);
  for (WorkClass* work_class : slot.kind->classes) --work_class->slots;
  ReleaseKind(std::exchange(slot.kind, nullptr));
}

void WorkQueue::SetBusy(Slot& slot, bool busy) {
  slot.busy = busy;
  if (slot.kind == nullptr) return;
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
              {priority, first.running, first.served, *level.waiting.at(first.submitter).benchmarks.begin()}};
    }
    Unfile(work_class, priority, level, first);
    File(work_class, priority, level, *first.submitter);
  }
}

WorkQueue::Candidate WorkQueue::Best(const SlotKind& kind) const {
  Candidate best;
  for (WorkClass* work_class : kind.classes) {
    const Candidate candidate = BestOf(*work_class);
    if (candidate.work_class == nullptr) continue;
    if (best.work_class == nullptr || candidate.rank < best.rank) best = candidate;
  }
  return best;
}

Slot* WorkQueue::FindIdle(const WorkClass& work_class, const std::string& avoid) {
  Slot* found = nullptr;
  for (const SlotKind* kind : work_class.kinds) {
    for (Slot* slot : kind->idle) {
      if (slot->worker->name() != avoid) return slot;
      if (found == nullptr) found = slot;
    }
  }
  return found;
}

absl::Status WorkQueue::CheckNothingIdles() const {
  for (const auto& [key, work_class] : classes_) {
    if (work_class->levels.empty() || !work_class->open()) continue;
    for (const SlotKind* kind : work_class->kinds) {
      if (kind->idle.empty()) continue;
      const Slot& slot = **kind->idle.begin();
      return absl::InternalError(absl::StrCat(slot.worker->name(), " ", slot.info.id(), " is idle while benchmark ",
                                              BestOf(*work_class).rank.benchmark, " waits for one like it"));
    }
  }
  return absl::OkStatus();
}

absl::Status WorkQueue::Check() const {
  for (const auto& [key, work_class] : classes_) {
    uint32_t slots = 0;
    for (const SlotKind* kind : work_class->kinds) {
      slots += static_cast<uint32_t>(kind->slots.size());
      if (!Misfit(*work_class, *kind).empty()) return absl::InternalError("a class lists a kind that does not fit");
    }
    if (slots != work_class->slots) return absl::InternalError("a class counts its slots wrong: " + key);
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
      const bool listed =
          std::find(kind->classes.begin(), kind->classes.end(), work_class.get()) != kind->classes.end();
      if (listed != Misfit(*work_class, *kind).empty()) return absl::InternalError("a kind misses a class that fits");
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
