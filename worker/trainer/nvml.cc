#include "worker/trainer/nvml.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>

namespace attnfleet::trainer {
namespace {

constexpr int kSuccess = 0;
constexpr int kSmClock = 1;
constexpr int kMemoryClock = 2;
constexpr int kGpuTemperature = 0;
constexpr int kUncorrected = 1;
constexpr int kSinceBoot = 0;
constexpr unsigned kMemoryVersion = sizeof(NvmlMemory) | (2u << 24);
constexpr unsigned long long kNotAvailable = ~0ULL;

// What a function of one output gives, or nothing.
template <typename Value, typename Function, typename... Arguments>
std::optional<Value> Ask(Function* function, Arguments... arguments) {
  Value value{};
  if (function == nullptr || function(arguments..., &value) != kSuccess) return std::nullopt;
  return value;
}

// Adds the processes that the function lists and `processes` lacks; false if it refuses.
bool List(int (*function)(NvmlDevice, unsigned*, NvmlProcessInfo*), NvmlDevice device,
          std::vector<GpuProcess>& processes) {
  std::array<NvmlProcessInfo, 128> list{};
  unsigned count = list.size();
  if (function == nullptr || function(device, &count, list.data()) != kSuccess) return false;
  for (unsigned i = 0; i < count; ++i) {
    const int64_t pid = list[i].pid;
    if (std::any_of(processes.begin(), processes.end(), [pid](const GpuProcess& known) { return known.pid == pid; })) {
      continue;
    }
    GpuProcess process;
    process.pid = pid;
    if (list[i].used_bytes != kNotAvailable) process.used_bytes = static_cast<int64_t>(list[i].used_bytes);
    processes.push_back(process);
  }
  return true;
}

}  // namespace

NvmlFunctions LoadNvml() {
  NvmlFunctions nvml;
  void* const library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return nvml;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
  };
  find(nvml.init, "nvmlInit_v2");
  find(nvml.driver_version, "nvmlSystemGetDriverVersion");
  find(nvml.count, "nvmlDeviceGetCount_v2");
  find(nvml.by_index, "nvmlDeviceGetHandleByIndex_v2");
  find(nvml.uuid, "nvmlDeviceGetUUID");
  find(nvml.clock, "nvmlDeviceGetClockInfo");
  find(nvml.temperature, "nvmlDeviceGetTemperature");
  find(nvml.power, "nvmlDeviceGetPowerUsage");
  find(nvml.throttle_reasons, "nvmlDeviceGetCurrentClocksEventReasons");  // since driver 535
  if (nvml.throttle_reasons == nullptr) find(nvml.throttle_reasons, "nvmlDeviceGetCurrentClocksThrottleReasons");
  find(nvml.energy, "nvmlDeviceGetTotalEnergyConsumption");
  find(nvml.ecc_mode, "nvmlDeviceGetEccMode");
  find(nvml.ecc_errors, "nvmlDeviceGetTotalEccErrors");
  find(nvml.memory, "nvmlDeviceGetMemoryInfo_v2");
  find(nvml.compute_processes, "nvmlDeviceGetComputeRunningProcesses_v3");
  find(nvml.graphics_processes, "nvmlDeviceGetGraphicsRunningProcesses_v3");
  find(nvml.process_name, "nvmlSystemGetProcessName");
  return nvml;
}

Nvml::Nvml(const NvmlFunctions& functions) : functions_(functions) {
  unsigned count = 0;
  if (functions.init == nullptr || functions.count == nullptr || functions.by_index == nullptr ||
      functions.uuid == nullptr || functions.init() != kSuccess || functions.count(&count) != kSuccess) {
    return;
  }
  for (unsigned i = 0; i < count; ++i) {
    NvmlDevice device = nullptr;
    std::array<char, 96> uuid{};
    // A card that this container may not touch hides itself alone.
    if (functions.by_index(i, &device) != kSuccess || functions.uuid(device, uuid.data(), uuid.size()) != kSuccess) {
      continue;
    }
    devices_.emplace_back(uuid.data(), device);
  }
}

std::vector<std::string> Nvml::Uuids() const {
  std::vector<std::string> uuids;
  for (const auto& [uuid, device] : devices_) uuids.push_back(uuid);
  return uuids;
}

std::string Nvml::DriverVersion() const {
  std::array<char, 96> text{};
  if (functions_.driver_version == nullptr || functions_.driver_version(text.data(), text.size()) != kSuccess)
    return "";
  return text.data();
}

NvmlDevice Nvml::Find(const std::string& uuid) const {
  for (const auto& [known, device] : devices_) {
    if (known == uuid) return device;
  }
  return nullptr;
}

GpuSample Nvml::Sample(const std::string& uuid) const {
  GpuSample sample;
  const NvmlDevice device = Find(uuid);
  if (device == nullptr) return sample;
  const auto number = [](const std::optional<unsigned>& value) {
    return value ? std::optional<int>(static_cast<int>(*value)) : std::nullopt;
  };
  sample.sm_clock_mhz = number(Ask<unsigned>(functions_.clock, device, kSmClock));
  sample.memory_clock_mhz = number(Ask<unsigned>(functions_.clock, device, kMemoryClock));
  sample.temperature_celsius = number(Ask<unsigned>(functions_.temperature, device, kGpuTemperature));
  const auto milliwatts = Ask<unsigned>(functions_.power, device);
  if (milliwatts) sample.power_watts = *milliwatts / 1e3;
  sample.throttle_reasons = Ask<unsigned long long>(functions_.throttle_reasons, device);
  NvmlMemory memory{};
  memory.version = kMemoryVersion;
  if (functions_.memory != nullptr && functions_.memory(device, &memory) == kSuccess) {
    sample.used_bytes = static_cast<int64_t>(memory.used);
  }
  sample.processes = Processes(device);
  return sample;
}

GpuCounters Nvml::Counters(const std::string& uuid) const {
  GpuCounters counters;
  const NvmlDevice device = Find(uuid);
  if (device == nullptr) return counters;
  const auto millijoules = Ask<unsigned long long>(functions_.energy, device);
  if (millijoules) counters.energy_joules = static_cast<double>(*millijoules) / 1e3;
  int current = 0;
  int pending = 0;
  if (functions_.ecc_mode != nullptr && functions_.ecc_mode(device, &current, &pending) == kSuccess) {
    counters.ecc_enabled = current != 0;
  }
  const auto errors = Ask<unsigned long long>(functions_.ecc_errors, device, kUncorrected, kSinceBoot);
  if (errors) counters.ecc_uncorrected_errors = static_cast<int64_t>(*errors);
  return counters;
}

std::optional<std::vector<GpuProcess>> Nvml::Processes(const std::string& uuid) const {
  const NvmlDevice device = Find(uuid);
  return device == nullptr ? std::nullopt : Processes(device);
}

std::optional<std::vector<GpuProcess>> Nvml::Processes(NvmlDevice device) const {
  std::vector<GpuProcess> processes;
  if (!List(functions_.compute_processes, device, processes)) return std::nullopt;
  // Cards without graphics refuse this one.
  List(functions_.graphics_processes, device, processes);
  return processes;
}

std::string Nvml::ProcessName(int64_t pid) const {
  std::array<char, 256> text{};
  if (functions_.process_name == nullptr ||
      functions_.process_name(static_cast<unsigned>(pid), text.data(), text.size()) != kSuccess) {
    return "";
  }
  return text.data();
}

}  // namespace attnfleet::trainer
