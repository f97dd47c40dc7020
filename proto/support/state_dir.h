#ifndef ATTNFLEET_PROTO_SUPPORT_STATE_DIR_H_
#define ATTNFLEET_PROTO_SUPPORT_STATE_DIR_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attnfleet {

// A lock that the kernel releases with the process, however that ends.
class FileLock {
 public:
  FileLock() = default;
  ~FileLock();
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

  // Creates `path` with `mode` (whatever the umask) if needed, locks it and writes "PID HOLDER" into it.
  // ALREADY_EXISTS tells who holds it.
  static absl::StatusOr<FileLock> Acquire(const std::string& path, std::string_view holder, unsigned mode = 0600);

 private:
  int descriptor_ = -1;
};

// Creates the folder (mode 0700, parents too) and proves that it can be written. The error names the folder.
absl::Status PrepareStateDirectory(const std::string& path);

// Writes all of it, or says of `path` why not.
absl::Status WriteAll(int descriptor, std::string_view contents, const std::string& path);

// Replaces `path` in one step: after a crash there is the old file or the new one, complete and on disk.
absl::Status WriteFileAtomically(const std::string& path, std::string_view contents);

// Then what was renamed or created at `path` is still there after a crash of the machine.
absl::Status SyncFolderOf(const std::string& path);

absl::StatusOr<std::string> ReadFile(const std::string& path);

// $XDG_STATE_HOME/attnfleet, or ~/.local/state/attnfleet.
std::string DefaultStateDirectory();

}  // namespace attnfleet

#endif  // ATTNFLEET_PROTO_SUPPORT_STATE_DIR_H_
