#include "worker/trainer/telemetry.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "worker/trainer/statistics.h"

namespace attnfleet::trainer {
namespace {

constexpr int64_t kMebibyte = 1 << 20;
// A CUDA context takes more than this on the GPUs of data centres, and what this process takes besides its tensors
// (kernels loaded late, cuDNN's plans) is far less.
constexpr int64_t kForeignBytes = 200 * kMebibyte;
// The energy counter moves every 20 to 100 ms.
constexpr double kLeastSecondsForEnergy = 0.5;
constexpr double kClockDrop = 0.05;
constexpr size_t kLeastSamplesForClockDrop = 8;

struct ThrottleReason {
  uint64_t bit;
  const char* name;
  bool contaminates;  // the card is in trouble
  bool caps = false;  // contaminates where the clock fell
};

// NVML's nvmlClocksEventReason* bits.
constexpr ThrottleReason kReasons[] = {
    {0x1, "idle", false},
    {0x2, "application clocks", false},
    {0x4, "power cap", false, true},
    {0x8, "hardware slowdown", true},
    {0x10, "sync boost", false, true},
    {0x20, "software thermal slowdown", true},
    {0x40, "hardware thermal slowdown", true},
    {0x80, "power brake", true},
    {0x100, "display clocks", false},
};

// The values that the samples have of one member.
template <typename Value>
std::vector<double> Values(const GpuRecord& record, std::optional<Value> GpuSample::*member) {
  std::vector<double> values;
  for (const GpuSample& sample : record.samples) {
    if (sample.*member) values.push_back(static_cast<double>(*(sample.*member)));
  }
  return values;
}

uint64_t ThrottleBits(const GpuRecord& record) {
  uint64_t bits = 0;
  for (const GpuSample& sample : record.samples) bits |= sample.throttle_reasons.value_or(0);
  return bits;
}

std::vector<std::string> ThrottleNames(uint64_t bits) {
  std::vector<std::string> names;
  for (const ThrottleReason& reason : kReasons) {
    if ((bits & reason.bit) != 0) names.emplace_back(reason.name);
    bits &= ~reason.bit;
  }
  if (bits != 0) names.push_back(absl::StrCat("reason 0x", absl::Hex(bits)));
  return names;
}

struct Processes {
  std::vector<OtherProcess> others;
  std::optional<int64_t> own;  // its number with the driver
  int newcomers = 0;           // since before this process had a context, itself included
  bool complete = false;       // nobody can be missing in `others`
};

Processes Sort(const GpuRecord& record) {
  std::map<int64_t, OtherProcess> all;
  std::set<int64_t> before;
  const auto note = [&](const std::optional<std::vector<GpuProcess>>& processes, const char* phase) {
    if (!processes) return false;
    for (const GpuProcess& process : *processes) {
      OtherProcess& entry = all[process.pid];
      entry.pid = process.pid;
      entry.used_bytes = std::max(entry.used_bytes, process.used_bytes.value_or(0));
      if (entry.phases.empty() || entry.phases.back() != phase) entry.phases.emplace_back(phase);
    }
    return true;
  };
  Processes sorted;
  sorted.complete = note(record.processes_before, "before") && record.sees_all_processes;
  for (const auto& [pid, process] : all) before.insert(pid);
  bool listed = false;
  for (const GpuSample& sample : record.samples) listed |= note(sample.processes, "during");
  sorted.complete &= listed;
  sorted.complete &= note(record.processes_after, "after");

  std::vector<int64_t> newcomers;
  for (const auto& [pid, process] : all) {
    if (before.count(pid) == 0) newcomers.push_back(pid);
  }
  sorted.newcomers = static_cast<int>(newcomers.size());
  const bool own_is_new = std::count(newcomers.begin(), newcomers.end(), record.own_pid) != 0;
  if (own_is_new || (record.sees_all_processes && all.count(record.own_pid) != 0)) {
    sorted.own = record.own_pid;
  } else if (!record.sees_all_processes && newcomers.size() == 1 && record.processes_before) {
    sorted.own = newcomers.front();  // under a number that it does not know itself
  }
  sorted.complete &= sorted.own.has_value();
  for (auto& [pid, process] : all) {
    if (pid == sorted.own || (!sorted.own && before.count(pid) == 0)) continue;
    const auto name = record.process_names.find(pid);
    if (name != record.process_names.end()) process.name = name->second;
    sorted.others.push_back(std::move(process));
  }
  return sorted;
}

// Whoever was there during or after the timed steps.
std::vector<std::string> Intruders(const Processes& processes) {
  std::vector<std::string> names;
  for (const OtherProcess& process : processes.others) {
    if (process.phases.back() == "before") continue;
    names.push_back(process.name.empty() ? absl::StrCat(process.pid) : absl::StrCat(process.name, " ", process.pid));
  }
  return names;
}

// Why somebody else must hold memory of the card, though NVML names nobody; empty if nothing says so.
std::string ForeignMemory(const GpuRecord& record, const Processes& processes) {
  std::vector<int64_t> used;
  std::vector<int64_t> foreign;  // where NVML tells what is ours
  for (const GpuSample& sample : record.samples) {
    if (!sample.used_bytes) continue;
    used.push_back(*sample.used_bytes);
    if (!sample.processes || !processes.own) continue;
    for (const GpuProcess& process : *sample.processes) {
      if (process.pid == processes.own && process.used_bytes) foreign.push_back(used.back() - *process.used_bytes);
    }
  }
  if (!foreign.empty()) {
    const int64_t most = *std::max_element(foreign.begin(), foreign.end());
    if (most <= kForeignBytes) return "";
    return absl::StrCat("others hold ", most / kMebibyte, " MiB of the GPU's memory");
  }
  if (record.used_bytes_before.value_or(0) > kForeignBytes) {
    return absl::StrCat(*record.used_bytes_before / kMebibyte, " MiB of the GPU's memory were in use before the run");
  }
  if (used.empty()) return "";
  const auto [least, most] = std::minmax_element(used.begin(), used.end());
  const int64_t change = *most - *least - std::max<int64_t>(0, record.own_growth_bytes);
  if (change <= kForeignBytes) return "";
  return absl::StrCat("the memory that others hold on the GPU changed by ", change / kMebibyte, " MiB");
}

// By which part the SM clock fell from the first quarter of the window to the last one.
double ClockDrop(const GpuRecord& record) {
  const std::vector<double> clocks = Values(record, &GpuSample::sm_clock_mhz);
  if (clocks.size() < kLeastSamplesForClockDrop) return 0;
  const auto quarter = static_cast<std::ptrdiff_t>(clocks.size() / 4);
  const double first = Quantile({clocks.begin(), clocks.begin() + quarter}, 0.5);
  const double last = Quantile({clocks.end() - quarter, clocks.end()}, 0.5);
  return first > 0 ? 1 - last / first : 0;
}

std::optional<int64_t> NewEccErrors(const GpuRecord& record) {
  if (!record.begin.ecc_uncorrected_errors || !record.end.ecc_uncorrected_errors) return std::nullopt;
  return *record.end.ecc_uncorrected_errors - *record.begin.ecc_uncorrected_errors;
}

}  // namespace

GpuTelemetry Summarise(const GpuRecord& record) {
  GpuTelemetry telemetry;
  telemetry.samples = static_cast<int>(record.samples.size());
  const auto known = [&](const std::vector<double>& values, const char* what) {
    if (values.empty()) telemetry.unknown.emplace_back(what);
    return !values.empty();
  };
  const std::vector<double> sm_clocks = Values(record, &GpuSample::sm_clock_mhz);
  if (known(sm_clocks, "SM clock")) {
    telemetry.sm_clock_mhz_median = static_cast<int>(Quantile(sm_clocks, 0.5));
    telemetry.sm_clock_mhz_min = static_cast<int>(Quantile(sm_clocks, 0));
  }
  const std::vector<double> memory_clocks = Values(record, &GpuSample::memory_clock_mhz);
  if (known(memory_clocks, "memory clock")) {
    telemetry.memory_clock_mhz_median = static_cast<int>(Quantile(memory_clocks, 0.5));
  }
  const std::vector<double> temperatures = Values(record, &GpuSample::temperature_celsius);
  if (known(temperatures, "temperature"))
    telemetry.temperature_celsius_max = static_cast<int>(Quantile(temperatures, 1));
  const std::vector<double> powers = Values(record, &GpuSample::power_watts);
  if (known(powers, "power")) {
    for (const double power : powers) telemetry.power_watts_mean += power / static_cast<double>(powers.size());
  }
  if (known(Values(record, &GpuSample::throttle_reasons), "throttle reasons")) {
    telemetry.throttle_reasons = ThrottleNames(ThrottleBits(record));
  }
  if (record.begin.energy_joules && record.end.energy_joules && record.seconds >= kLeastSecondsForEnergy) {
    telemetry.energy_joules = *record.end.energy_joules - *record.begin.energy_joules;
  } else {
    telemetry.unknown.emplace_back("energy");
  }
  telemetry.ecc_enabled = record.end.ecc_enabled.value_or(false);
  telemetry.ecc_uncorrected_errors = NewEccErrors(record).value_or(0);
  const bool ecc_off = record.end.ecc_enabled.has_value() && !*record.end.ecc_enabled;
  if (!ecc_off && (!record.end.ecc_enabled || !NewEccErrors(record))) telemetry.unknown.emplace_back("ECC errors");
  known(Values(record, &GpuSample::used_bytes), "memory of others");
  Processes processes = Sort(record);
  telemetry.other_processes = std::move(processes.others);
  if (!processes.complete) telemetry.unknown.emplace_back("other processes");
  return telemetry;
}

std::vector<std::string> Contamination(const GpuRecord& record) {
  std::vector<std::string> reasons;
  const uint64_t bits = ThrottleBits(record);
  const double drop = ClockDrop(record);
  for (const ThrottleReason& reason : kReasons) {
    if ((bits & reason.bit) == 0) continue;
    if (reason.contaminates) reasons.emplace_back(reason.name);
    if (reason.caps && drop > kClockDrop) {
      reasons.push_back(absl::StrCat(reason.name, ": the SM clock fell by ", static_cast<int>(100 * drop),
                                     " % (a longer --warmup lets it settle first)"));
    }
  }
  if (NewEccErrors(record).value_or(0) > 0) {
    reasons.push_back(absl::StrCat("uncorrected ECC errors: ", *NewEccErrors(record)));
  }
  const Processes processes = Sort(record);
  const std::vector<std::string> intruders = Intruders(processes);
  if (!intruders.empty()) {
    reasons.push_back(absl::StrCat("other processes on the GPU: ", absl::StrJoin(intruders, ", ")));
  } else if (!processes.own && processes.newcomers > 1) {
    reasons.push_back(absl::StrCat("other processes on the GPU: ", processes.newcomers - 1, " began during the run"));
  } else if (const std::string memory = ForeignMemory(record, processes); !memory.empty()) {
    reasons.push_back(memory);
  }
  return reasons;
}

}  // namespace attnfleet::trainer
