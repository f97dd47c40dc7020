#include "proto/support/state_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace attnfleet {
namespace {

constexpr mode_t kPrivateFile = 0600;

}  // namespace

FileLock::~FileLock() {
  if (descriptor_ >= 0) close(descriptor_);
}

FileLock::FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock& FileLock::operator=(FileLock&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

absl::StatusOr<FileLock> FileLock::Acquire(const std::string& path, std::string_view holder, unsigned mode) {
  FileLock lock;
  // Without O_CREAT first: the kernel refuses that for another user's file in a folder like /tmp. No link is followed
  // there either, since the file is written to.
  constexpr int kFlags = O_RDWR | O_CLOEXEC | O_NOFOLLOW;
  lock.descriptor_ = open(path.c_str(), kFlags);
  if (lock.descriptor_ < 0 && errno == ENOENT) {
    lock.descriptor_ = open(path.c_str(), kFlags | O_CREAT, mode);
    // Against the umask. It fails only if another user was faster with creating it, and then did the same.
    if (lock.descriptor_ >= 0) fchmod(lock.descriptor_, mode);
  }
  if (lock.descriptor_ < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open lock file ", path));
  if (flock(lock.descriptor_, LOCK_EX | LOCK_NB) != 0) {
    std::array<char, 256> text{};
    const ssize_t length = pread(lock.descriptor_, text.data(), text.size() - 1, 0);
    const std::string other = length > 0 ? std::string(text.data()) : std::string("another process");
    return absl::AlreadyExistsError(absl::StrCat(path, " is held by process ", other));
  }
  const std::string text = absl::StrCat(getpid(), " (", std::string(holder), ")");
  if (ftruncate(lock.descriptor_, 0) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
  if (absl::Status status = WriteAll(lock.descriptor_, text, path); !status.ok()) return status;
  return lock;
}

absl::Status PrepareStateDirectory(const std::string& path) {
  const auto failed = [&path](int error, const char* what) {
    return absl::ErrnoToStatus(error, absl::StrCat("state directory ", path, " ", what));
  };
  std::error_code error;
  const mode_t mask = umask(0077);
  std::filesystem::create_directories(path, error);
  umask(mask);
  if (error) return failed(error.value(), "cannot be created");
  // Permissions prove nothing to root, so write.
  std::string probe = path + "/.probe.XXXXXX";
  const int descriptor = mkostemp(probe.data(), O_CLOEXEC);
  if (descriptor < 0) return failed(errno, "cannot be written");
  absl::Status status = WriteAll(descriptor, "probe", probe);
  if (status.ok() && fsync(descriptor) != 0) status = absl::ErrnoToStatus(errno, "fsync");
  close(descriptor);
  unlink(probe.c_str());
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat("state directory ", path, " cannot be written: ", std::string(status.message())));
  }
  return absl::OkStatus();
}

absl::Status WriteAll(int descriptor, std::string_view contents, const std::string& path) {
  while (!contents.empty()) {
    const ssize_t written = write(descriptor, contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
    contents.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status WriteFileAtomically(const std::string& path, std::string_view contents) {
  const std::string temporary = absl::StrCat(path, ".tmp");
  const int descriptor = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kPrivateFile);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot create ", temporary));
  absl::Status status = WriteAll(descriptor, contents, temporary);
  if (status.ok() && fsync(descriptor) != 0) status = absl::ErrnoToStatus(errno, absl::StrCat("cannot sync ", path));
  close(descriptor);
  if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
    status = absl::ErrnoToStatus(errno, absl::StrCat("cannot replace ", path));
  }
  if (!status.ok()) {
    unlink(temporary.c_str());
    return status;
  }
  return SyncFolderOf(path);
}

absl::Status SyncFolderOf(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  const int descriptor = open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", folder));
  const int failed = fsync(descriptor) != 0 ? errno : 0;
  close(descriptor);
  if (failed != 0) return absl::ErrnoToStatus(failed, absl::StrCat("cannot sync ", folder));
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  std::string contents;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t length = read(descriptor, buffer.data(), buffer.size());
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) {
      const int error = errno;
      close(descriptor);
      return absl::ErrnoToStatus(error, absl::StrCat("cannot read ", path));
    }
    if (length == 0) break;
    contents.append(buffer.data(), static_cast<size_t>(length));
  }
  close(descriptor);
  return contents;
}

std::string DefaultStateDirectory() {
  if (const char* state = std::getenv("XDG_STATE_HOME"); state != nullptr && *state == '/') {
    return absl::StrCat(state, "/attnfleet");
  }
  const char* home = std::getenv("HOME");
  return absl::StrCat(home != nullptr && *home != '\0' ? home : "/tmp", "/.local/state/attnfleet");
}

}  // namespace attnfleet
