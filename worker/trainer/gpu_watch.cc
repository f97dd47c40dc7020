#include "worker/trainer/gpu_watch.h"

#include <unistd.h>

#include <array>
#include <string_view>
#include <utility>

namespace attnfleet::trainer {
namespace {

// Whether this process lives in the first process namespace of the host, where every process is seen under the number
// that the driver gives it.
bool SeesAllProcesses() {
  std::array<char, 64> target{};
  const ssize_t size = readlink("/proc/self/ns/pid", target.data(), target.size());
  return size > 0 && std::string_view(target.data(), static_cast<size_t>(size)) == "pid:[4026531836]";
}

}  // namespace

GpuWatch::GpuWatch(const Nvml& nvml, std::chrono::milliseconds period)
    : nvml_(nvml), period_(period), sees_all_processes_(SeesAllProcesses()) {
  for (const std::string& uuid : nvml.Uuids()) before_[uuid] = nvml.Sample(uuid);
}

GpuWatch::~GpuWatch() { Stop(); }

void GpuWatch::Begin(const std::string& uuid) {
  Stop();
  uuid_ = uuid;
  record_ = {};
  const GpuSample& before = before_[uuid];
  record_.processes_before = before.processes;
  record_.used_bytes_before = before.used_bytes;
  record_.own_pid = getpid();
  record_.sees_all_processes = sees_all_processes_;
  stopping_ = false;
  record_.begin = nvml_.Counters(uuid);
  begin_ = std::chrono::steady_clock::now();
  thread_ = std::thread([this] { Work(); });
}

GpuRecord GpuWatch::End() {
  record_.end = nvml_.Counters(uuid_);
  record_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  Stop();
  record_.processes_after = nvml_.Processes(uuid_);
  if (sees_all_processes_) {
    const auto name = [&](const std::optional<std::vector<GpuProcess>>& processes) {
      if (!processes) return;
      for (const auto& [pid, used_bytes] : *processes) {
        if (record_.process_names.count(pid) == 0) record_.process_names[pid] = nvml_.ProcessName(pid);
      }
    };
    name(record_.processes_after);
    for (const GpuSample& sample : record_.samples) name(sample.processes);
  }
  return std::exchange(record_, {});
}

void GpuWatch::Stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void GpuWatch::Work() {
  std::unique_lock lock(mutex_);
  do {
    lock.unlock();
    record_.samples.push_back(nvml_.Sample(uuid_));
    lock.lock();
  } while (!wake_.wait_for(lock, period_, [this] { return stopping_; }));
}

}  // namespace attnfleet::trainer
