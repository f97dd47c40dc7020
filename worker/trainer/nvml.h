#ifndef ATTNFLEET_WORKER_TRAINER_NVML_H_
#define ATTNFLEET_WORKER_TRAINER_NVML_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace attnfleet::trainer {

// Prototypes as NVML's documentation gives them; its ABI is stable within the library's version 1. No header and no
// import library of it are packaged.
using NvmlDevice = void*;

struct NvmlMemory {  // nvmlMemory_v2_t
  unsigned version;
  unsigned long long total, reserved, free, used;
};

struct NvmlProcessInfo {  // nvmlProcessInfo_t of the _v3 calls
  unsigned pid;
  unsigned long long used_bytes;  // all ones: not available
  unsigned gpu_instance, compute_instance;
};

// The functions of libnvidia-ml.so.1 that are used here; null where the driver has none.
struct NvmlFunctions {
  int (*init)() = nullptr;
  int (*driver_version)(char*, unsigned) = nullptr;
  int (*count)(unsigned*) = nullptr;
  int (*by_index)(unsigned, NvmlDevice*) = nullptr;
  int (*uuid)(NvmlDevice, char*, unsigned) = nullptr;
  int (*clock)(NvmlDevice, int, unsigned*) = nullptr;
  int (*temperature)(NvmlDevice, int, unsigned*) = nullptr;
  int (*power)(NvmlDevice, unsigned*) = nullptr;
  int (*throttle_reasons)(NvmlDevice, unsigned long long*) = nullptr;
  int (*energy)(NvmlDevice, unsigned long long*) = nullptr;
  int (*ecc_mode)(NvmlDevice, int*, int*) = nullptr;
  int (*ecc_errors)(NvmlDevice, int, int, unsigned long long*) = nullptr;
  int (*memory)(NvmlDevice, NvmlMemory*) = nullptr;
  int (*compute_processes)(NvmlDevice, unsigned*, NvmlProcessInfo*) = nullptr;
  int (*graphics_processes)(NvmlDevice, unsigned*, NvmlProcessInfo*) = nullptr;
  int (*process_name)(unsigned, char*, unsigned) = nullptr;
};

// Loads the library; all null without one. It stays until the process ends.
NvmlFunctions LoadNvml();

struct GpuProcess {
  int64_t pid = 0;  // as the driver numbers it: inside a container it may mean nothing there
  std::optional<int64_t> used_bytes;
};

// What NVML says at one moment. Nothing where it refuses.
struct GpuSample {
  std::optional<int> sm_clock_mhz, memory_clock_mhz, temperature_celsius;
  std::optional<double> power_watts;
  std::optional<uint64_t> throttle_reasons;          // its bits
  std::optional<int64_t> used_bytes;                 // by all processes, without what the driver keeps for itself
  std::optional<std::vector<GpuProcess>> processes;  // with computations or graphics
};

struct GpuCounters {
  std::optional<double> energy_joules;
  std::optional<bool> ecc_enabled;
  std::optional<int64_t> ecc_uncorrected_errors;
};

// Asks about one GPU at a time, which it knows by "GPU-xxxxxxxx-...". May be used from several threads.
class Nvml {
 public:
  explicit Nvml(const NvmlFunctions& functions = LoadNvml());

  std::vector<std::string> Uuids() const;
  std::string DriverVersion() const;  // empty: unknown
  GpuSample Sample(const std::string& uuid) const;
  GpuCounters Counters(const std::string& uuid) const;
  std::optional<std::vector<GpuProcess>> Processes(const std::string& uuid) const;
  std::string ProcessName(int64_t pid) const;  // empty: unknown

 private:
  NvmlDevice Find(const std::string& uuid) const;
  std::optional<std::vector<GpuProcess>> Processes(NvmlDevice device) const;

  const NvmlFunctions functions_;
  std::vector<std::pair<std::string, NvmlDevice>> devices_;
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_NVML_H_
