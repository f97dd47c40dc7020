#include "worker/slot_lock.h"

#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace attnfleet::worker {
namespace {

// Anyone may add and use a lock file, nobody may remove another's.
constexpr mode_t kDirectoryMode = 01777;
constexpr mode_t kFileMode = 0666;

absl::Status MakeLockDirectory(const std::string& directory) {
  if (mkdir(directory.c_str(), kDirectoryMode) == 0) {
    if (chmod(directory.c_str(), kDirectoryMode) == 0) return absl::OkStatus();  // against the umask
  } else if (errno == EEXIST) {
    return absl::OkStatus();
  }
  return absl::ErrnoToStatus(errno, absl::StrCat("--lock-dir: cannot make ", directory));
}

}  // namespace

absl::StatusOr<std::vector<FileLock>> LockSlots(const std::vector<v1::Slot>& slots, const std::string& directory,
                                                std::string_view holder) {
  std::vector<FileLock> locks;
  for (const v1::Slot& slot : slots) {
    if (slot.device_kind() != v1::DEVICE_KIND_CUDA) continue;
    if (locks.empty()) {
      if (absl::Status status = MakeLockDirectory(directory); !status.ok()) return status;
    }
    absl::StatusOr<FileLock> lock =
        FileLock::Acquire(absl::StrCat(directory, "/", slot.id(), ".lock"), holder, kFileMode);
    if (absl::IsAlreadyExists(lock.status())) {
      return absl::AlreadyExistsError(
          absl::StrCat("GPU ", slot.device_name(), " (", slot.id(),
                       ") is taken by another worker: ", std::string(lock.status().message())));
    }
    if (!lock.ok()) return lock.status();
    locks.push_back(std::move(*lock));
  }
  return locks;
}

}  // namespace attnfleet::worker
