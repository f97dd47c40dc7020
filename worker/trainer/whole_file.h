#ifndef ATTNFLEET_WORKER_TRAINER_WHOLE_FILE_H_
#define ATTNFLEET_WORKER_TRAINER_WHOLE_FILE_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attnfleet::trainer {

// A file that appears under its name when it is whole; until then, and after an error, whatever lay there is untouched.
// Errors name the file.
class WholeFile {
 public:
  // Opens a temporary file beside `path`.
  static absl::StatusOr<WholeFile> Create(const std::string& path);
  WholeFile(WholeFile&& other) noexcept;
  WholeFile& operator=(WholeFile&&) = delete;
  ~WholeFile();

  absl::Status Append(std::string_view bytes);
  // After the last byte: on disk, then under its name.
  absl::Status Finish();

 private:
  explicit WholeFile(const std::string& path);
  absl::Status Failed(const char* what, int error) const;

  std::string path_;
  std::string temporary_;  // empty: gone or renamed
  int file_ = -1;
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_WHOLE_FILE_H_
