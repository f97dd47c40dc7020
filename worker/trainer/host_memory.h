#ifndef ATTNFLEET_WORKER_TRAINER_HOST_MEMORY_H_
#define ATTNFLEET_WORKER_TRAINER_HOST_MEMORY_H_

#include <cstdint>
#include <string>

namespace attnfleet::trainer {

struct HostMemory {
  int64_t total_bytes = 0;      // of the host, or what this process's cgroup may have of it
  int64_t available_bytes = 0;  // without swapping
};

// As the kernel tells it: /proc/meminfo, and the limits of this process's cgroup (version 2) and of those around it.
// `root` is put before every path, for tests.
HostMemory ReadHostMemory(const std::string& root = "");

// Bounds what this process can allocate (RLIMIT_DATA) by what it holds and what is available, less a reserve. So a run
// that is too large for the host fails at an allocation, like one that is too large for a GPU, and neither fills the
// machine nor meets the kernel's out-of-memory killer. A lower bound that is there already stays.
// `root` as above.
void LimitHostMemory(const std::string& root = "");

// What the bound left when this process held most; what is available without a bound. To be asked after an allocation
// has failed, when much has been given back already.
int64_t LeastFreeHostBytes();

// Makes this process, and what it becomes by exec, the first that the kernel kills when the host's memory is used up.
void BeFirstToBeKilled();

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_HOST_MEMORY_H_
