#include "client/output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace attnfleet::client {
namespace {

absl::Status Failed(int error, const std::string& what) {
  return absl::Status(absl::StatusCode::kUnknown, std::string(absl::ErrnoToStatus(error, what).message()));
}

// 0, or the errno of the write that failed.
int WriteAll(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    text.remove_prefix(static_cast<size_t>(written));
  }
  return 0;
}

}  // namespace

absl::Status CheckOutput(const std::string& path) {
  if (path.empty()) return absl::OkStatus();
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
  // A pipe that nobody reads yet (ENXIO) may have a reader when the result is there.
  if (descriptor < 0 && errno != ENXIO) {
    return absl::InvalidArgumentError(std::string(absl::ErrnoToStatus(errno, "--output: " + path).message()));
  }
  if (descriptor >= 0) close(descriptor);
  return absl::OkStatus();
}

absl::Status WriteOutput(const std::string& path, const std::string& text) {
  if (path.empty()) {
    const int error = WriteAll(STDOUT_FILENO, text);
    return error == 0 || error == EPIPE ? absl::OkStatus() : Failed(error, "cannot write the result");
  }
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) return Failed(errno, absl::StrCat("--output: cannot open ", path));
  int error = WriteAll(descriptor, text);
  if (close(descriptor) != 0 && error == 0) error = errno;  // some file systems tell of a full disk only here
  return error == 0 ? absl::OkStatus() : Failed(error, absl::StrCat("--output: cannot write ", path));
}

void PrintNote(const std::string& text) { WriteAll(STDERR_FILENO, absl::StrCat("attnfleet: ", text, "\n")); }

}  // namespace attnfleet::client
