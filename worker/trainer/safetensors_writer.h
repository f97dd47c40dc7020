#ifndef ATTNFLEET_WORKER_TRAINER_SAFETENSORS_WRITER_H_
#define ATTNFLEET_WORKER_TRAINER_SAFETENSORS_WRITER_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/trainer/safetensors.h"
#include "worker/trainer/whole_file.h"

namespace attnfleet::trainer {

// Writes a safetensors file tensor by tensor. It is there when it is whole (see WholeFile).
class SafetensorsWriter {
 public:
  struct Tensor {
    std::string name;
    ElementType type;
    std::vector<int64_t> shape;
  };

  // Writes the header.
  static absl::StatusOr<SafetensorsWriter> Create(const std::string& path, const std::vector<Tensor>& tensors,
                                                  const std::map<std::string, std::string>& metadata);

  // The elements of the next tensor.
  absl::Status Append(std::string_view bytes) { return file_.Append(bytes); }
  // After the last one.
  absl::Status Finish() { return file_.Finish(); }

 private:
  explicit SafetensorsWriter(WholeFile file) : file_(std::move(file)) {}

  WholeFile file_;
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_SAFETENSORS_WRITER_H_
