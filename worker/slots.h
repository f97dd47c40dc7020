#ifndef ATTNFLEET_WORKER_SLOTS_H_
#define ATTNFLEET_WORKER_SLOTS_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "attnfleet/v1/worker.pb.h"
#include "worker/nvml.h"

namespace attnfleet::worker {

// What decides which devices this worker offers.
struct SlotOptions {
  std::string slots = "auto";                         // --slots
  std::optional<std::string> cuda_visible_devices{};  // the environment variable; absent is not the same as empty
  std::string cuda_device_order{};                    // the environment variable
  bool cuda_works = true;                             // the trainer could load its CUDA module
  std::string cuda_error{};                           // why it could not
};

// Whether `slots` can name slots at all, wherever it is. INVALID_ARGUMENT names the flag and what it takes.
absl::Status CheckSlots(const std::string& slots);

// The slots that `options.slots` names: "auto" (every visible GPU, or one CPU slot where there is none), "cpu",
// "cpu:N", "gpu" (every visible GPU), or a comma list of indexes and UUIDs (or their unique beginnings) of visible GPUs
// and MIG instances. A GPU that is partitioned is offered as its instances. INVALID_ARGUMENT and NOT_FOUND name the
// flag and what there is. INVALID_ARGUMENT too where numbers in CUDA_VISIBLE_DEVICES could mean other GPUs to CUDA,
// which counts the fastest first unless CUDA_DEVICE_ORDER says PCI_BUS_ID, than to this worker.
absl::StatusOr<std::vector<v1::Slot>> DiscoverSlots(const SlotOptions& options, GpuLister& lister);

// The devices that a CUDA program with this CUDA_VISIBLE_DEVICES would see, in its order. CUDA's rules: entries are
// indexes or UUIDs (or unique beginnings of them); the first that is invalid hides itself and all after it; a device
// named twice hides everything; empty hides everything. Indexes count in PCI bus order. An entry that means a
// partitioned GPU is its first instance.
std::vector<v1::Slot> VisibleGpus(const std::vector<Gpu>& gpus, const std::optional<std::string>& cuda_visible_devices);

// The processor's name in the text of /proc/cpuinfo; "CPU" if there is none.
std::string ProcessorName(std::string_view cpuinfo);

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_SLOTS_H_
