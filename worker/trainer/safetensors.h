#ifndef ATTNFLEET_WORKER_TRAINER_SAFETENSORS_H_
#define ATTNFLEET_WORKER_TRAINER_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attnfleet::trainer {

enum class ElementType { kFloat32, kFloat16, kBFloat16, kInt64 };

// "F32", "F16", "BF16", "I64", and their sizes.
const char* Name(ElementType type);
int64_t Bytes(ElementType type);

// A file in Hugging Face's safetensors format, mapped into memory: an 8-byte little-endian header length, a JSON header
// {name: {dtype, shape, data_offsets}}, the elements. F32, F16, BF16 and I64 are supported.
class SafetensorsFile {
 public:
  struct Entry {
    ElementType type;
    std::vector<int64_t> shape;
    std::string_view bytes;  // row-major, into the file's own memory; not aligned
  };

  // The error names the file and, where some are to blame, the tensors.
  static absl::StatusOr<SafetensorsFile> Read(const std::string& path);
  // The same from bytes; `name` is for messages.
  static absl::StatusOr<SafetensorsFile> Parse(const std::string& name, std::string contents);

  SafetensorsFile(SafetensorsFile&&) = default;
  SafetensorsFile& operator=(SafetensorsFile&&) = default;

  const std::map<std::string, Entry>& entries() const { return entries_; }
  // The header's "__metadata__": free text by name.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  SafetensorsFile() = default;
  absl::Status ParseHeader(const std::string& name, std::string_view all);

  std::shared_ptr<const void> memory_;  // the mapping or the string that the entries point into
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_SAFETENSORS_H_
