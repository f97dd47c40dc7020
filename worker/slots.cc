#include "worker/slots.h"

#include <unistd.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "proto/support/log.h"
#include "proto/support/state_dir.h"

namespace attnfleet::worker {
namespace {

constexpr int kMaxCpuSlots = 256;

v1::Slot MakeGpuSlot(const std::string& uuid, const std::string& name, int64_t memory_bytes) {
  v1::Slot slot;
  slot.set_id(uuid);
  slot.set_device_kind(v1::DEVICE_KIND_CUDA);
  slot.set_device_name(name);
  slot.set_memory_bytes(memory_bytes);
  return slot;
}

// What can be used of one GPU: itself, or its instances.
std::vector<v1::Slot> Usable(const Gpu& gpu) {
  if (gpu.uuid.empty()) return {};
  if (!gpu.mig_enabled) return {MakeGpuSlot(gpu.uuid, gpu.name, gpu.memory_bytes)};
  std::vector<v1::Slot> slots;
  for (const MigInstance& instance : gpu.instances) {
    slots.push_back(MakeGpuSlot(instance.uuid, instance.name, instance.memory_bytes));
  }
  return slots;
}

std::optional<v1::Slot> FirstUsable(const Gpu& gpu) {
  std::vector<v1::Slot> slots = Usable(gpu);
  if (slots.empty()) return std::nullopt;
  return std::move(slots.front());
}

// A list of devices, as --slots and CUDA_VISIBLE_DEVICES give it.
std::vector<std::string> Entries(const std::string& list) {
  std::vector<std::string> entries = absl::StrSplit(list, ',');
  for (std::string& entry : entries) absl::StripAsciiWhitespace(&entry);
  return entries;
}

bool IsCpu(const std::string& slots) { return slots == "cpu" || absl::StartsWith(slots, "cpu:"); }

bool IsUuid(const std::string& entry) { return absl::StartsWith(entry, "GPU-") || absl::StartsWith(entry, "MIG-"); }

// The one device that an entry of CUDA_VISIBLE_DEVICES means; none if it is invalid.
std::optional<v1::Slot> Resolve(const std::vector<Gpu>& gpus, const std::string& entry) {
  int index = -1;
  if (absl::SimpleAtoi(entry, &index)) {
    if (index < 0 || static_cast<size_t>(index) >= gpus.size()) return std::nullopt;
    return FirstUsable(gpus[static_cast<size_t>(index)]);
  }
  std::vector<v1::Slot> matches;
  if (absl::StartsWith(entry, "GPU-")) {
    for (const Gpu& gpu : gpus) {
      if (!absl::StartsWithIgnoreCase(gpu.uuid, entry)) continue;
      std::optional<v1::Slot> slot = FirstUsable(gpu);
      if (slot) matches.push_back(std::move(*slot));
    }
  } else if (absl::StartsWith(entry, "MIG-")) {
    for (const Gpu& gpu : gpus) {
      for (v1::Slot& slot : Usable(gpu)) {
        if (gpu.mig_enabled && absl::StartsWithIgnoreCase(slot.id(), entry)) matches.push_back(std::move(slot));
      }
    }
  }
  if (matches.size() != 1) return std::nullopt;
  return std::move(matches.front());
}

std::vector<v1::Slot> CpuSlots(int count) {
  const absl::StatusOr<std::string> cpuinfo = ReadFile("/proc/cpuinfo");
  const std::string name = ProcessorName(cpuinfo.ok() ? *cpuinfo : std::string());
  const int64_t memory = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  std::vector<v1::Slot> slots(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    v1::Slot& slot = slots[static_cast<size_t>(i)];
    slot.set_id(absl::StrCat("cpu", i));
    slot.set_device_kind(v1::DEVICE_KIND_CPU);
    slot.set_device_name(name);
    slot.set_memory_bytes(memory);
  }
  return slots;
}

std::string Listed(const std::vector<v1::Slot>& slots) {
  if (slots.empty()) return "no GPU is visible here";
  std::vector<std::string> texts;
  for (size_t i = 0; i < slots.size(); ++i) texts.push_back(absl::StrCat(i, " = ", slots[i].id()));
  return absl::StrCat("visible here: ", absl::StrJoin(texts, ", "));
}

// The slot of `visible` that an entry of --slots means.
absl::StatusOr<v1::Slot> Choose(const std::vector<v1::Slot>& visible, const std::string& entry) {
  int index = 0;
  const bool is_index = absl::SimpleAtoi(entry, &index);
  if (is_index && index >= 0 && static_cast<size_t>(index) < visible.size()) {
    return visible[static_cast<size_t>(index)];
  }
  std::vector<v1::Slot> matches;
  for (const v1::Slot& slot : visible) {
    if (!is_index && absl::StartsWithIgnoreCase(slot.id(), entry)) matches.push_back(slot);
  }
  if (matches.size() == 1) return matches.front();
  return absl::NotFoundError(absl::StrCat("--slots: ", matches.empty() ? "there is no GPU \"" : "several GPUs match \"",
                                          entry, "\"; ", Listed(visible)));
}

absl::StatusOr<std::vector<v1::Slot>> ChooseAll(const std::vector<v1::Slot>& visible, const std::string& list) {
  std::vector<v1::Slot> slots;
  for (const std::string& entry : Entries(list)) {
    absl::StatusOr<v1::Slot> slot = Choose(visible, entry);
    if (!slot.ok()) return slot.status();
    for (const v1::Slot& other : slots) {
      if (other.id() == slot->id()) {
        return absl::InvalidArgumentError(absl::StrCat("--slots: ", slot->id(), " is named twice"));
      }
    }
    slots.push_back(std::move(*slot));
  }
  return slots;
}

// GPUs that are alike have one order, whoever counts them.
absl::Status CheckOrder(const SlotOptions& options, const std::vector<Gpu>& gpus) {
  if (!options.cuda_visible_devices || options.cuda_device_order == "PCI_BUS_ID") return absl::OkStatus();
  std::set<std::string> names;
  for (const Gpu& gpu : gpus) names.insert(gpu.name);
  names.erase("");
  for (const std::string& entry : Entries(*options.cuda_visible_devices)) {
    int index = -1;
    if (names.size() < 2 || !absl::SimpleAtoi(entry, &index) || index < 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "CUDA_VISIBLE_DEVICES=", *options.cuda_visible_devices, ": the GPUs of this host differ (",
        absl::StrJoin(names, ", "), "), and CUDA counts the fastest first; name UUIDs (nvidia-smi -L), or ",
        "set CUDA_DEVICE_ORDER=PCI_BUS_ID to count as nvidia-smi does"));
  }
  return absl::OkStatus();
}

absl::StatusOr<int> CpuCount(const std::string& slots) {
  if (slots == "cpu") return 1;
  int count = 0;
  if (absl::SimpleAtoi(slots.substr(slots.find(':') + 1), &count) && count >= 1 && count <= kMaxCpuSlots) return count;
  return absl::InvalidArgumentError(
      absl::StrCat("--slots: \"", slots, "\": give cpu:N with N from 1 to ", kMaxCpuSlots));
}

}  // namespace

absl::Status CheckSlots(const std::string& slots) {
  if (slots == "auto" || slots == "gpu") return absl::OkStatus();
  if (IsCpu(slots)) return CpuCount(slots).status();
  for (const std::string& entry : Entries(slots)) {
    int index = 0;
    if (IsUuid(entry) || (absl::SimpleAtoi(entry, &index) && index >= 0)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--slots: \"", entry,
                     "\" is no slot; give auto, cpu, cpu:N, gpu, or GPU indexes and UUIDs (0,1 or GPU-5b2f...)"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<v1::Slot>> DiscoverSlots(const SlotOptions& options, GpuLister& lister) {
  if (absl::Status status = CheckSlots(options.slots); !status.ok()) return status;
  if (IsCpu(options.slots)) return CpuSlots(*CpuCount(options.slots));
  const bool automatic = options.slots == "auto";
  const absl::StatusOr<std::vector<Gpu>> gpus = lister.List();
  if (!gpus.ok()) {
    if (automatic) return CpuSlots(1);
    return absl::NotFoundError(absl::StrCat("--slots=", options.slots, ": ", std::string(gpus.status().message())));
  }
  if (absl::Status status = CheckOrder(options, *gpus); !status.ok()) return status;
  std::vector<v1::Slot> visible = VisibleGpus(*gpus, options.cuda_visible_devices);
  if (!visible.empty() && !options.cuda_works) {
    const std::string why = absl::StrCat("the trainer cannot use CUDA: ", options.cuda_error);
    if (!automatic) return absl::NotFoundError(absl::StrCat("--slots=", options.slots, ": ", why));
    LogWarning(absl::StrCat(visible.size(), " GPU(s) found, but ", why, "; offering the CPU"));
    return CpuSlots(1);
  }
  if (automatic) return visible.empty() ? CpuSlots(1) : visible;
  if (options.slots != "gpu") return ChooseAll(visible, options.slots);
  if (!visible.empty()) return visible;
  return absl::NotFoundError(absl::StrCat("--slots=gpu: ", gpus->size(), " GPU(s) in this host, but none is visible",
                                          options.cuda_visible_devices ? " with CUDA_VISIBLE_DEVICES=" : "",
                                          options.cuda_visible_devices.value_or("")));
}

std::vector<v1::Slot> VisibleGpus(const std::vector<Gpu>& gpus,
                                  const std::optional<std::string>& cuda_visible_devices) {
  std::vector<v1::Slot> visible;
  if (!cuda_visible_devices) {
    for (const Gpu& gpu : gpus) {
      for (v1::Slot& slot : Usable(gpu)) visible.push_back(std::move(slot));
    }
    return visible;
  }
  for (const std::string& entry : Entries(*cuda_visible_devices)) {
    std::optional<v1::Slot> slot = Resolve(gpus, entry);
    if (!slot) break;
    const auto same = [&slot](const v1::Slot& other) { return other.id() == slot->id(); };
    if (std::any_of(visible.begin(), visible.end(), same)) return {};
    visible.push_back(std::move(*slot));
  }
  return visible;
}

std::string ProcessorName(std::string_view cpuinfo) {
  for (const auto& line : absl::StrSplit(absl::string_view(cpuinfo.data(), cpuinfo.size()), '\n')) {
    const std::vector<absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits(':', 1));
    if (parts.size() == 2 && absl::StripAsciiWhitespace(parts[0]) == "model name") {
      return std::string(absl::StripAsciiWhitespace(parts[1]));
    }
  }
  return "CPU";
}

}  // namespace attnfleet::worker
