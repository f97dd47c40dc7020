#ifndef ATTNFLEET_WORKER_NVML_H_
#define ATTNFLEET_WORKER_NVML_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace attnfleet::worker {

// An instance of a partitioned GPU.
struct MigInstance {
  std::string uuid;  // "MIG-..."
  std::string name;  // "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
  int64_t memory_bytes = 0;
};

struct Gpu {
  std::string uuid;  // "GPU-..."; empty if the card cannot be used
  std::string name;
  int64_t memory_bytes = 0;
  bool mig_enabled = false;  // then only its instances can be used
  std::vector<MigInstance> instances;
};

// What the NVIDIA driver tells about this host. The seam that tests fake.
class GpuLister {
 public:
  virtual ~GpuLister() = default;
  // In the order of nvidia-smi (PCI bus). NOT_FOUND where there is no driver.
  virtual absl::StatusOr<std::vector<Gpu>> List() = 0;
};

// Asks libnvidia-ml.so.1, found at run time: no header and no library of it is needed to build.
std::unique_ptr<GpuLister> MakeNvmlLister();

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_NVML_H_
