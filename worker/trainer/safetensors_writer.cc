#include "worker/trainer/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

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

SafetensorsWriter::SafetensorsWriter(const std::string& path)
    : path_(path), temporary_(absl::StrCat(path, ".", getpid(), ".tmp")) {}

SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})),
      file_(std::exchange(other.file_, -1)) {}

SafetensorsWriter::~SafetensorsWriter() {
  if (file_ >= 0) close(file_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

absl::StatusOr<SafetensorsWriter> SafetensorsWriter::Create(const std::string& path, const std::vector<Tensor>& tensors,
                                                            const std::map<std::string, std::string>& metadata) {
  SafetensorsWriter writer(path);
  writer.file_ = open(writer.temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (writer.file_ < 0) return writer.Failed("created", errno);
  if (absl::Status status = writer.Append(Header(tensors, metadata)); !status.ok()) return status;
  return writer;
}

absl::Status SafetensorsWriter::Append(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = write(file_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Failed("written", errno);
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Finish() {
  if (fsync(file_) != 0) return Failed("written", errno);
  if (close(std::exchange(file_, -1)) != 0) return Failed("written", errno);
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) return Failed("renamed from its temporary name", errno);
  temporary_.clear();
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Failed(const char* what, int error) const {
  return absl::ErrnoToStatus(error, absl::StrCat(path_, " cannot be ", what));
}

}  // namespace attnfleet::trainer
