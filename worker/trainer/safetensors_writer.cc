#include "worker/trainer/safetensors_writer.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace attnfleet::trainer {
namespace {

using Json = nlohmann::json;

constexpr size_t kHeaderMultiple = 8;  // so that the elements are aligned

std::string Header(const std::vector<SafetensorsWriter::Tensor>& tensors,
                   const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t offset = 0;
  for (const SafetensorsWriter::Tensor& tensor : tensors) {
    int64_t size = Bytes(tensor.type);
    for (const int64_t dimension : tensor.shape) size *= dimension;
    header[tensor.name] = {
        {"dtype", Name(tensor.type)}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + size}}};
    offset += size;
  }
  std::string text = header.dump();
  text.append((kHeaderMultiple - text.size() % kHeaderMultiple) % kHeaderMultiple, ' ');
  const uint64_t size = text.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + text;
}

}  // namespace

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(const std::string& path, const std::vector<Tensor>& tensors,
                                                            const std::map<std::string, std::string>& metadata) {
  absl::StatusOr<WholeFile> file = WholeFile::Create(path);
  if (!file.ok()) return file.status();
  if (absl::Status status = file->Append(Header(tensors, metadata)); !status.ok()) return status;
  return SafetensorsWriter(*std::move(file));
}

}  // namespace attnfleet::trainer
