#include "worker/trainer/host_memory.h"

#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace attnfleet::trainer {
namespace {

namespace fs = std::filesystem;

// Of the host's memory, left to everybody else.
constexpr int64_t kReservedPart = 32;

// The number behind `key` in a file of lines "KEY NUMBER", with or without a unit; nothing if there is none.
std::optional<int64_t> Number(const fs::path& file, const std::string& key) {
  std::string line;
  for (std::ifstream stream(file); std::getline(stream, line);) {
    if (!absl::StartsWith(line, key)) continue;
    const std::vector<std::string> words = absl::StrSplit(line.substr(key.size()), ' ', absl::SkipWhitespace());
    int64_t number = 0;
    if (!words.empty() && absl::SimpleAtoi(words[0], &number)) return number;
  }
  return std::nullopt;
}

int64_t Kilobytes(const fs::path& file, const std::string& key) { return Number(file, key).value_or(0) * 1024; }

// Lowers `memory` to what one cgroup allows. Page cache that nobody uses can be had.
void Lower(HostMemory& memory, const fs::path& cgroup) {
  const std::optional<int64_t> limit = Number(cgroup / "memory.max", "");  // "max": none
  const std::optional<int64_t> used = Number(cgroup / "memory.current", "");
  if (!limit || !used) return;
  const int64_t reclaimable = Number(cgroup / "memory.stat", "inactive_file ").value_or(0);
  memory.total_bytes = std::min(memory.total_bytes, *limit);
  memory.available_bytes = std::min(memory.available_bytes, std::max<int64_t>(0, *limit - *used + reclaimable));
}

// Of the process itself; in bytes.
int64_t Status(const std::string& key) { return Kilobytes("/proc/self/status", absl::StrCat(key, ":")); }

}  // namespace

HostMemory ReadHostMemory(const std::string& root) {
  const fs::path meminfo = root + "/proc/meminfo";
  HostMemory memory{Kilobytes(meminfo, "MemTotal:"), Kilobytes(meminfo, "MemAvailable:")};
  const fs::path mount = root + "/sys/fs/cgroup";
  std::string line;
  for (std::ifstream stream(root + "/proc/self/cgroup"); std::getline(stream, line);) {
    if (!absl::StartsWith(line, "0::/")) continue;
    for (fs::path path = line.substr(4);; path = path.parent_path()) {
      Lower(memory, mount / path);
      if (path.empty()) break;
    }
  }
  return memory;
}

void LimitHostMemory(const std::string& root) {
  const HostMemory memory = ReadHostMemory(root);
  if (memory.total_bytes == 0) return;  // the kernel does not tell
  const int64_t room = std::max<int64_t>(0, memory.available_bytes - memory.total_bytes / kReservedPart);
  rlimit limit{};
  getrlimit(RLIMIT_DATA, &limit);
  limit.rlim_cur = std::min(limit.rlim_cur, static_cast<rlim_t>(Status("VmData") + room));
  setrlimit(RLIMIT_DATA, &limit);
}

int64_t LeastFreeHostBytes() {
  rlimit limit{};
  getrlimit(RLIMIT_DATA, &limit);
  if (limit.rlim_cur == RLIM_INFINITY) return ReadHostMemory().available_bytes;
  // The kernel keeps the peak of the address space alone; what of it is no data hardly changes.
  const int64_t most_data = Status("VmPeak") - Status("VmSize") + Status("VmData");
  return std::max<int64_t>(0, static_cast<int64_t>(limit.rlim_cur) - most_data);
}

void BeFirstToBeKilled() { std::ofstream("/proc/self/oom_score_adj") << 1000; }

}  // namespace attnfleet::trainer
