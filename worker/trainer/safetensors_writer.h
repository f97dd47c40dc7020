#ifndef ATTNFLEET_WORKER_TRAINER_SAFETENSORS_WRITER_H_
#define ATTNFLEET_WORKER_TRAINER_SAFETENSORS_WRITER_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/trainer/safetensors.h"

namespace attnfleet::trainer {

// Writes a safetensors file tensor by tensor. It appears under its name when it is whole; until then, and after an
// error, whatever lay there is untouched.
class SafetensorsWriter {
 public:
  struct Tensor {
    std::string name;
    ElementType type;
    std::vector<int64_t> shape;
  };

  // Opens a temporary file beside `path` and writes the header.
  static absl::StatusOr<SafetensorsWriter> Create(const std::string& path, const std::vector<Tensor>& tensors,
                                                  const std::map<std::string, std::string>& metadata);
  SafetensorsWriter(SafetensorsWriter&& other) noexcept;
  SafetensorsWriter& operator=(SafetensorsWriter&&) = delete;
  ~SafetensorsWriter();

  // The elements of the next tensor.
  absl::Status Append(std::string_view bytes);
  // After the last one.
  absl::Status Finish();

 private:
  explicit SafetensorsWriter(const std::string& path);
  absl::Status Failed(const char* what, int error) const;

  std::string path_;
  std::string temporary_;  // empty: gone or renamed
  int file_ = -1;
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_SAFETENSORS_WRITER_H_
