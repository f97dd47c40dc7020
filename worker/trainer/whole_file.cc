#include "worker/trainer/whole_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"

namespace attnfleet::trainer {

WholeFile::WholeFile(const std::string& path) : path_(path), temporary_(absl::StrCat(path, ".", getpid(), ".tmp")) {}

WholeFile::WholeFile(WholeFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})),
      file_(std::exchange(other.file_, -1)) {}

WholeFile::~WholeFile() {
  if (file_ >= 0) close(file_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

absl::StatusOr<WholeFile> WholeFile::Create(const std::string& path) {
  WholeFile file(path);
  file.file_ = open(file.temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file.file_ < 0) return file.Failed("created", errno);
  return file;
}

absl::Status WholeFile::Append(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = write(file_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Failed("written", errno);
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return absl::OkStatus();
}

absl::Status WholeFile::Finish() {
  if (fsync(file_) != 0) return Failed("written", errno);
  if (close(std::exchange(file_, -1)) != 0) return Failed("written", errno);
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) return Failed("renamed from its temporary name", errno);
  temporary_.clear();
  return absl::OkStatus();
}

absl::Status WholeFile::Failed(const char* what, int error) const {
  return absl::ErrnoToStatus(error, absl::StrCat(path_, " cannot be ", what));
}

}  // namespace attnfleet::trainer
