#include "worker/gpu_telemetry.h"

#include <dlfcn.h>
#include <prometheus/metric_family.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <utility>

#include "proto/support/log.h"
#include "proto/support/metrics_endpoint.h"

namespace attnfleet::worker {
namespace {

// Prototypes and numbers as NVML's documentation gives them; its ABI is stable within the library's version 1.
using Device = void*;
using Return = int;
constexpr Return kSuccess = 0;
constexpr int kGpuTemperature = 0;
constexpr int kSmClock = 1;
constexpr int kMemoryClock = 2;

struct Memory {
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;
};

struct Utilization {
  unsigned gpu;  // per cent
  unsigned memory;
};

// Every function but the first three may be missing or refuse: an old driver, a MIG instance, a card without a sensor.
class NvmlReader final : public GpuReader {
 public:
  static std::unique_ptr<NvmlReader> Load() {
    std::unique_ptr<NvmlReader> nvml(new NvmlReader);
    nvml->library_ = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (nvml->library_ == nullptr) return nullptr;
    Return (*init)() = nullptr;
    nvml->Find("nvmlInit_v2", init);
    nvml->Find("nvmlShutdown", nvml->shutdown_);
    nvml->Find("nvmlDeviceGetHandleByUUID", nvml->by_uuid_);
    nvml->Find("nvmlDeviceGetTemperature", nvml->temperature_);
    nvml->Find("nvmlDeviceGetPowerUsage", nvml->power_);
    nvml->Find("nvmlDeviceGetMemoryInfo", nvml->memory_);
    nvml->Find("nvmlDeviceGetUtilizationRates", nvml->utilization_);
    nvml->Find("nvmlDeviceGetClockInfo", nvml->clock_);
    if (init == nullptr || nvml->shutdown_ == nullptr || nvml->by_uuid_ == nullptr || init() != kSuccess) {
      return nullptr;
    }
    nvml->initialised_ = true;
    return nvml;
  }

  ~NvmlReader() override {
    if (initialised_) shutdown_();
    if (library_ != nullptr) dlclose(library_);
  }

  GpuReading Read(const std::string& uuid) override {
    GpuReading reading;
    Device device = nullptr;
    if (by_uuid_(uuid.c_str(), &device) != kSuccess) return reading;
    unsigned value = 0;
    if (temperature_ != nullptr && temperature_(device, kGpuTemperature, &value) == kSuccess) {
      reading.temperature_celsius = value;
    }
    if (power_ != nullptr && power_(device, &value) == kSuccess) reading.power_watts = value / 1e3;  // milliwatts
    Memory memory{};
    if (memory_ != nullptr && memory_(device, &memory) == kSuccess) {
      reading.memory_used_bytes = static_cast<double>(memory.used);
      reading.memory_total_bytes = static_cast<double>(memory.total);
    }
    Utilization utilization{};
    if (utilization_ != nullptr && utilization_(device, &utilization) == kSuccess) {
      reading.utilization_ratio = utilization.gpu / 100.0;
    }
    if (clock_ != nullptr && clock_(device, kSmClock, &value) == kSuccess) reading.sm_clock_hertz = value * 1e6;
    if (clock_ != nullptr && clock_(device, kMemoryClock, &value) == kSuccess) reading.memory_clock_hertz = value * 1e6;
    return reading;
  }

 private:
  NvmlReader() = default;

  template <typename Function>
  void Find(const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library_, name));
  }

  void* library_ = nullptr;
  bool initialised_ = false;
  Return (*shutdown_)() = nullptr;
  Return (*by_uuid_)(const char*, Device*) = nullptr;
  Return (*temperature_)(Device, int, unsigned*) = nullptr;
  Return (*power_)(Device, unsigned*) = nullptr;
  Return (*memory_)(Device, Memory*) = nullptr;
  Return (*utilization_)(Device, Utilization*) = nullptr;
  Return (*clock_)(Device, int, unsigned*) = nullptr;
};

// One gauge of each GPU: a member of GpuReading under a name.
struct Figure {
  const char* name;
  const char* help;
  std::optional<double> GpuReading::*value;
};
constexpr Figure kFigures[] = {
    {"attnfleet_gpu_temperature_celsius", "Temperature of the GPU.", &GpuReading::temperature_celsius},
    {"attnfleet_gpu_power_watts", "Power that the card draws.", &GpuReading::power_watts},
    {"attnfleet_gpu_memory_used_bytes", "Memory of the GPU that is in use.", &GpuReading::memory_used_bytes},
    {"attnfleet_gpu_memory_size_bytes", "Memory of the GPU.", &GpuReading::memory_total_bytes},
    {"attnfleet_gpu_utilization_ratio", "Part of the driver's last sample period in which a kernel ran.",
     &GpuReading::utilization_ratio},
    {"attnfleet_gpu_sm_clock_hertz", "Clock of the streaming multiprocessors.", &GpuReading::sm_clock_hertz},
    {"attnfleet_gpu_memory_clock_hertz", "Clock of the memory.", &GpuReading::memory_clock_hertz},
};

}  // namespace

std::unique_ptr<GpuReader> MakeNvmlReader() { return NvmlReader::Load(); }

struct GpuTelemetry::Shared {
  using Clock = std::chrono::steady_clock;

  // Constant, and the thread's alone.
  std::vector<v1::Slot> gpus;
  std::unique_ptr<GpuReader> reader;

  std::mutex mutex;
  std::condition_variable changed;

  // Guarded by mutex.
  std::optional<Clock::time_point> deadline;  // of the reading that is wanted or under way
  std::vector<GpuReading> readings;           // the last ones, one for each GPU
  uint64_t readings_done = 0;
  bool stopping = false;
  bool stopped = false;
};

GpuTelemetry::GpuTelemetry(const std::vector<v1::Slot>& slots, std::unique_ptr<GpuReader> reader,
                           std::chrono::milliseconds patience)
    : patience_(patience), shared_(std::make_shared<Shared>()) {
  for (const v1::Slot& slot : slots) {
    if (slot.device_kind() == v1::DEVICE_KIND_CUDA) shared_->gpus.push_back(slot);
  }
  if (reader == nullptr || shared_->gpus.empty()) return;
  shared_->reader = std::move(reader);
  thread_ = std::thread([shared = shared_] { ReadWhenAsked(*shared); });
}

GpuTelemetry::~GpuTelemetry() {
  if (!thread_.joinable()) return;
  bool stopped = false;
  {
    std::unique_lock lock(shared_->mutex);
    shared_->stopping = true;
    shared_->changed.notify_all();
    stopped = shared_->changed.wait_for(lock, patience_, [this] { return shared_->stopped; });
  }
  if (stopped) {
    thread_.join();
  } else {
    LogWarning("the GPUs' driver does not answer: a call that waits for it is left behind");
    thread_.detach();
  }
}

void GpuTelemetry::ReadWhenAsked(Shared& shared) {
  std::unique_lock lock(shared.mutex);
  for (;;) {
    shared.changed.wait(lock, [&shared] { return shared.stopping || shared.deadline; });
    if (shared.stopping) break;
    lock.unlock();
    std::vector<GpuReading> readings;
    for (const v1::Slot& gpu : shared.gpus) readings.push_back(shared.reader->Read(gpu.id()));
    lock.lock();
    shared.readings = std::move(readings);
    ++shared.readings_done;
    shared.deadline.reset();
    shared.changed.notify_all();
  }
  lock.unlock();
  shared.reader.reset();  // calls the driver too
  lock.lock();
  shared.stopped = true;
  shared.changed.notify_all();
}

std::vector<prometheus::MetricFamily> GpuTelemetry::Collect() const {
  std::vector<prometheus::MetricFamily> families;
  if (!thread_.joinable()) return families;
  std::unique_lock lock(shared_->mutex);
  if (!shared_->deadline) {
    shared_->deadline = Shared::Clock::now() + patience_;
    shared_->changed.notify_all();
  }
  const Shared::Clock::time_point deadline = *shared_->deadline;
  const auto read = [this, before = shared_->readings_done] { return shared_->readings_done != before; };
  if (!shared_->changed.wait_until(lock, deadline, read)) return families;
  for (const Figure& figure : kFigures) families.push_back(MakeGaugeFamily(figure.name, figure.help));
  for (size_t gpu = 0; gpu < shared_->gpus.size(); ++gpu) {
    const v1::Slot& slot = shared_->gpus[gpu];
    for (size_t i = 0; i < families.size(); ++i) {
      const std::optional<double>& value = shared_->readings[gpu].*kFigures[i].value;
      if (value) AddGauge(families[i], {{"slot", slot.id()}, {"device", slot.device_name()}}, *value);
    }
  }
  std::erase_if(families, [](const prometheus::MetricFamily& family) { return family.metric.empty(); });
  return families;
}

}  // namespace attnfleet::worker
