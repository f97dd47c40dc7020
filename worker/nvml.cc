#include "worker/nvml.h"

#include <dlfcn.h>

#include <array>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace attnfleet::worker {
namespace {

// Prototypes as NVML's documentation gives them; its ABI is stable within the library's version 1.
using Device = void*;
using Return = int;
constexpr Return kSuccess = 0;
constexpr unsigned kMigEnabled = 1;

struct Memory {
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;
};

class Nvml final : public GpuLister {
 public:
  ~Nvml() override {
    if (initialised_) shutdown_();
    if (library_ != nullptr) dlclose(library_);
  }

  absl::StatusOr<std::vector<Gpu>> List() override {
    if (absl::Status status = Load(); !status.ok()) return status;
    unsigned count = 0;
    if (const Return error = device_count_(&count); error != kSuccess) return Failed("nvmlDeviceGetCount", error);
    std::vector<Gpu> gpus;
    for (unsigned index = 0; index < count; ++index) {
      Device device = nullptr;
      Gpu gpu;
      if (device_by_index_(index, &device) == kSuccess && Describe(device, gpu.uuid, gpu.name, gpu.memory_bytes)) {
        AddInstances(device, gpu);
        gpus.push_back(std::move(gpu));
      } else {
        // A card that has fallen off the bus, or that this container may not touch, keeps its number alone.
        gpus.emplace_back();
      }
    }
    return gpus;
  }

 private:
  absl::Status Load() {
    if (initialised_) return absl::OkStatus();
    library_ = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr) return absl::NotFoundError(absl::StrCat("no NVIDIA driver: ", dlerror()));
    const bool complete = Find("nvmlInit_v2", init_) && Find("nvmlShutdown", shutdown_) &&
                          Find("nvmlErrorString", error_string_) && Find("nvmlDeviceGetCount_v2", device_count_) &&
                          Find("nvmlDeviceGetHandleByIndex_v2", device_by_index_) && Find("nvmlDeviceGetUUID", uuid_) &&
                          Find("nvmlDeviceGetName", name_) && Find("nvmlDeviceGetMemoryInfo", memory_);
    if (!complete) return absl::NotFoundError("libnvidia-ml.so.1 lacks functions that this program needs");
    // Only with drivers since 450.
    mig_complete_ = Find("nvmlDeviceGetMigMode", mig_mode_) &&
                    Find("nvmlDeviceGetMaxMigDeviceCount", max_mig_devices_) &&
                    Find("nvmlDeviceGetMigDeviceHandleByIndex", mig_device_by_index_);
    if (const Return error = init_(); error != kSuccess) return Failed("nvmlInit", error);
    initialised_ = true;
    return absl::OkStatus();
  }

  template <typename Function>
  bool Find(const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library_, name));
    return function != nullptr;
  }

  absl::Status Failed(const char* what, Return error) const {
    return absl::NotFoundError(absl::StrCat(what, ": ", error_string_(error)));
  }

  bool Describe(Device device, std::string& uuid, std::string& name, int64_t& memory_bytes) const {
    std::array<char, 96> text{};
    if (uuid_(device, text.data(), text.size()) != kSuccess) return false;
    uuid = text.data();
    if (name_(device, text.data(), text.size()) != kSuccess) return false;
    name = text.data();
    Memory memory{};
    if (memory_(device, &memory) != kSuccess) return false;
    memory_bytes = static_cast<int64_t>(memory.total);
    return true;
  }

  void AddInstances(Device device, Gpu& gpu) const {
    unsigned current = 0;
    unsigned pending = 0;
    if (!mig_complete_ || mig_mode_(device, &current, &pending) != kSuccess || current != kMigEnabled) return;
    gpu.mig_enabled = true;
    unsigned most = 0;
    if (max_mig_devices_(device, &most) != kSuccess) return;
    for (unsigned index = 0; index < most; ++index) {
      Device instance = nullptr;
      if (mig_device_by_index_(device, index, &instance) != kSuccess) continue;  // no instance at this place
      MigInstance mig;
      if (Describe(instance, mig.uuid, mig.name, mig.memory_bytes)) gpu.instances.push_back(std::move(mig));
    }
  }

  void* library_ = nullptr;
  bool initialised_ = false;
  bool mig_complete_ = false;
  Return (*init_)() = nullptr;
  Return (*shutdown_)() = nullptr;
  const char* (*error_string_)(Return) = nullptr;
  Return (*device_count_)(unsigned*) = nullptr;
  Return (*device_by_index_)(unsigned, Device*) = nullptr;
  Return (*uuid_)(Device, char*, unsigned) = nullptr;
  Return (*name_)(Device, char*, unsigned) = nullptr;
  Return (*memory_)(Device, Memory*) = nullptr;
  Return (*mig_mode_)(Device, unsigned*, unsigned*) = nullptr;
  Return (*max_mig_devices_)(Device, unsigned*) = nullptr;
  Return (*mig_device_by_index_)(Device, unsigned, Device*) = nullptr;
};

}  // namespace

std::unique_ptr<GpuLister> MakeNvmlLister() { return std::make_unique<Nvml>(); }

}  // namespace attnfleet::worker
