#ifndef ATTNFLEET_WORKER_TRAINER_SAFETENSORS_H_
#define ATTNFLEET_WORKER_TRAINER_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace attnfleet::trainer {

enum class ElementType { kFloat32, kInt64 };

// A file in Hugging Face's safetensors format, read into memory: an 8-byte little-endian header length, a JSON header
// {name: {dtype, shape, data_offsets}}, the elements. F32 and I64 are supported.
class SafetensorsFile {
 public:
  struct Entry {
    ElementType type;
    std::vector<int64_t> shape;
    std::string_view bytes;  // row-major, into the file's own memory; not aligned
  };

  // The error names the file and, where one is to blame, the tensor.
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

  std::vector<char> data_;  // a vector: moving it leaves the entries' views valid
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_SAFETENSORS_H_
