#include "worker/trainer/safetensors.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace attnfleet::trainer {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own bound

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

absl::StatusOr<SafetensorsFile::Entry> ParseEntry(const std::string& name, const Json& json,
                                                  std::string_view elements) {
  SafetensorsFile::Entry entry;
  std::vector<int64_t> offsets;
  std::string type;
  try {
    type = json.at("dtype").get<std::string>();
    entry.shape = json.at("shape").get<std::vector<int64_t>>();
    offsets = json.at("data_offsets").get<std::vector<int64_t>>();
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat("tensor \"", name, "\": ", error.what()));
  }
  int64_t element_bytes = 0;
  if (type == "F32") {
    entry.type = ElementType::kFloat32;
    element_bytes = 4;
  } else if (type == "I64") {
    entry.type = ElementType::kInt64;
    element_bytes = 8;
  } else {
    return absl::UnimplementedError(absl::StrCat("tensor \"", name, "\" is ", type, "; F32 and I64 can be read"));
  }
  const int64_t total = static_cast<int64_t>(elements.size());
  if (offsets.size() != 2 || offsets[0] < 0 || offsets[1] < offsets[0] || offsets[1] > total) {
    return absl::DataLossError(absl::StrCat("tensor \"", name, "\" reaches past the end of the file (truncated?)"));
  }
  if (ByteSize(entry.shape, element_bytes, total) != offsets[1] - offsets[0]) {
    return absl::DataLossError(
        absl::StrCat("tensor \"", name, "\": its shape does not fit its ", offsets[1] - offsets[0], " bytes"));
  }
  entry.bytes = elements.substr(static_cast<size_t>(offsets[0]), static_cast<size_t>(offsets[1] - offsets[0]));
  return entry;
}

}  // namespace

absl::StatusOr<SafetensorsFile> SafetensorsFile::Read(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return absl::NotFoundError(absl::StrCat(path, " cannot be opened"));
  std::string contents{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (stream.bad()) return absl::DataLossError(absl::StrCat(path, " cannot be read"));
  return Parse(path, std::move(contents));
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Parse(const std::string& name, std::string contents) {
  uint64_t header_bytes = 0;
  if (contents.size() < sizeof header_bytes) return Corrupt(name, "it ends within the header's length");
  std::memcpy(&header_bytes, contents.data(), sizeof header_bytes);
  if (header_bytes > kMaxHeaderBytes || header_bytes > contents.size() - sizeof header_bytes) {
    return Corrupt(name,
                   absl::StrCat("its header is said to have ", header_bytes, " bytes, the file has ", contents.size()));
  }
  SafetensorsFile file;
  file.data_.assign(contents.begin(), contents.end());
  const std::string_view all(file.data_.data(), file.data_.size());
  const Json header = Json::parse(all.substr(sizeof header_bytes, header_bytes), nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) return Corrupt(name, "its header is no JSON object");
  const std::string_view elements = all.substr(sizeof header_bytes + header_bytes);
  for (const auto& [key, value] : header.items()) {
    if (key == "__metadata__") {
      for (const auto& [word, text] : value.items()) {
        if (text.is_string()) file.metadata_[word] = text.get<std::string>();
      }
      continue;
    }
    absl::StatusOr<Entry> entry = ParseEntry(key, value, elements);
    if (!entry.ok()) return Corrupt(name, std::string(entry.status().message()));
    file.entries_.emplace(key, *std::move(entry));
  }
  return file;
}

}  // namespace attnfleet::trainer
