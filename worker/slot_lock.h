#ifndef ATTNFLEET_WORKER_SLOT_LOCK_H_
#define ATTNFLEET_WORKER_SLOT_LOCK_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "attnfleet/v1/worker.pb.h"
#include "proto/support/state_dir.h"

namespace attnfleet::worker {

// Shared by all users of a host. Containers that share a GPU must share it too.
inline constexpr char kDefaultLockDirectory[] = "/tmp/attnfleet-locks";

// Locks every GPU of `slots` for this host, by UUID; the locks last as long as the result. ALREADY_EXISTS tells which
// card is taken and by whom. CPU slots are not locked: a second worker on one CPU is a test far more often than an
// accident.
absl::StatusOr<std::vector<FileLock>> LockSlots(const std::vector<v1::Slot>& slots, const std::string& directory,
                                                std::string_view holder);

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_SLOT_LOCK_H_
