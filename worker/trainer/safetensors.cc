#include "worker/trainer/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/name_list.h"

namespace attnfleet::trainer {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own bound

struct TypeInfo {
  const char* name;
  int64_t bytes;
};
constexpr TypeInfo kTypes[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8}};  // by ElementType

absl::Status Corrupt(const std::string& name, const std::string& what) {
  return absl::DataLossError(absl::StrCat(name, " is no usable safetensors file: ", what));
}

// Product of the shape times the element size, or -1 if a dimension is not a plausible number.
int64_t ByteSize(const std::vector<int64_t>& shape, int64_t element_bytes, int64_t most) {
  int64_t size = element_bytes;
  for (const int64_t dimension : shape) {
    if (dimension < 0 || (dimension > 0 && size > most / dimension)) return -1;
    size *= dimension;
  }
  return size;
}

// What a header says of one tensor.
struct Stated {
  std::string type;
  std::vector<int64_t> shape;
  std::vector<int64_t> offsets;
};

absl::StatusOr<Stated> ParseStated(const std::string& name, const Json& json) {
  try {
    return Stated{json.at("dtype").get<std::string>(), json.at("shape").get<std::vector<int64_t>>(),
                  json.at("data_offsets").get<std::vector<int64_t>>()};
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat("tensor \"", name, "\": ", error.what()));
  }
}

absl::StatusOr<ElementType> ParseType(const std::string& name, const std::string& type) {
  for (size_t i = 0; i < std::size(kTypes); ++i) {
    if (type == kTypes[i].name) return static_cast<ElementType>(i);
  }
  return absl::UnimplementedError(
      absl::StrCat("tensor \"", name, "\" is ", type, "; F32, F16, BF16 and I64 can be read"));
}

}  // namespace

const char* Name(ElementType type) { return kTypes[static_cast<size_t>(type)].name; }
int64_t Bytes(ElementType type) { return kTypes[static_cast<size_t>(type)].bytes; }

absl::StatusOr<SafetensorsFile> SafetensorsFile::Read(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return absl::ErrnoToStatus(errno, absl::StrCat(path, " cannot be opened"));
  struct stat info = {};
  void* mapping = MAP_FAILED;
  int error = fstat(file, &info) == 0 ? 0 : errno;
  if (error == 0 && !S_ISREG(info.st_mode)) error = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
  const size_t size = static_cast<size_t>(info.st_size);
  if (error == 0 && size > 0) {
    mapping = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    if (mapping == MAP_FAILED) error = errno;
  }
  close(file);
  if (error != 0) return absl::ErrnoToStatus(error, absl::StrCat(path, " cannot be read"));
  if (size == 0) return Corrupt(path, "it is empty");
  SafetensorsFile result;
  result.memory_ = std::shared_ptr<const void>(mapping, [size](const void* memory) {
    munmap(const_cast<void*>(memory), size);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  });
  if (absl::Status status = result.ParseHeader(path, {static_cast<const char*>(mapping), size}); !status.ok()) {
    return status;
  }
  return result;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Parse(const std::string& name, std::string contents) {
  SafetensorsFile result;
  const auto memory = std::make_shared<const std::string>(std::move(contents));
  result.memory_ = memory;
  if (absl::Status status = result.ParseHeader(name, *memory); !status.ok()) return status;
  return result;
}

absl::Status SafetensorsFile::ParseHeader(const std::string& name, std::string_view all) {
  uint64_t header_bytes = 0;
  if (all.size() < sizeof header_bytes) return Corrupt(name, "it ends within the header's length");
  std::memcpy(&header_bytes, all.data(), sizeof header_bytes);
  if (header_bytes > kMaxHeaderBytes || header_bytes > all.size() - sizeof header_bytes) {
    return Corrupt(name,
                   absl::StrCat("its header is said to have ", header_bytes, " bytes, the file has ", all.size()));
  }
  const Json header = Json::parse(all.substr(sizeof header_bytes, header_bytes), nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) return Corrupt(name, "its header is no JSON object");
  const std::string_view elements = all.substr(sizeof header_bytes + header_bytes);
  const int64_t total = static_cast<int64_t>(elements.size());
  std::vector<std::string> cut_off;
  for (const auto& [key, value] : header.items()) {
    if (key == "__metadata__") {
      for (const auto& [word, text] : value.items()) {
        if (text.is_string()) metadata_[word] = text.get<std::string>();
      }
      continue;
    }
    absl::StatusOr<Stated> stated = ParseStated(key, value);
    if (!stated.ok()) return Corrupt(name, std::string(stated.status().message()));
    const absl::StatusOr<ElementType> type = ParseType(key, stated->type);
    if (!type.ok()) return Corrupt(name, std::string(type.status().message()));
    const std::vector<int64_t>& offsets = stated->offsets;
    if (offsets.size() != 2 || offsets[0] < 0 || offsets[1] < offsets[0]) {
      return Corrupt(name, absl::StrCat("tensor \"", key, "\" has no end behind its beginning"));
    }
    if (offsets[1] > total) {
      cut_off.push_back(key);
      continue;
    }
    if (ByteSize(stated->shape, Bytes(*type), total) != offsets[1] - offsets[0]) {
      return Corrupt(
          name, absl::StrCat("tensor \"", key, "\": its shape does not fit its ", offsets[1] - offsets[0], " bytes"));
    }
    const std::string_view bytes =
        elements.substr(static_cast<size_t>(offsets[0]), static_cast<size_t>(offsets[1] - offsets[0]));
    entries_.emplace(key, Entry{*type, std::move(stated->shape), bytes});
  }
  if (cut_off.empty()) return absl::OkStatus();
  return Corrupt(name, absl::StrCat(cut_off.size(), " tensors reach past its end (truncated?): ", NameList(cut_off)));
}

}  // namespace attnfleet::trainer
