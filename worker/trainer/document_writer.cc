#include "worker/trainer/document_writer.h"

#include <cstddef>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/trainer/whole_file.h"

namespace attnfleet::trainer {
namespace {

struct HostBatch {
  std::vector<int64_t> ids, boxes, labels, mask;

  explicit HostBatch(size_t tokens) : ids(tokens), boxes(4 * tokens), labels(tokens), mask(tokens) {}
  BatchBuffers Buffers() { return {ids.data(), boxes.data(), labels.data(), mask.data()}; }
};

// The tokens from `first` on, up to the padding.
std::string Line(const HostBatch& batch, size_t first, size_t length) {
  nlohmann::ordered_json document = {
      {"ids", nlohmann::json::array()}, {"boxes", nlohmann::json::array()}, {"labels", nlohmann::json::array()}};
  for (size_t i = first; i < first + length && batch.mask[i] != 0; ++i) {
    const int64_t* box = &batch.boxes[4 * i];
    document["ids"].push_back(batch.ids[i]);
    document["boxes"].push_back({box[0], box[1], box[2], box[3]});
    document["labels"].push_back(batch.labels[i]);
  }
  return document.dump() + "\n";
}

}  // namespace

absl::Status WriteDocuments(const SyntheticSpec& spec, int64_t batches, const std::string& path) {
  absl::StatusOr<WholeFile> file = WholeFile::Create(path);
  if (!file.ok()) return file.status();
  const size_t length = static_cast<size_t>(spec.sequence_length);
  HostBatch batch(static_cast<size_t>(spec.batch) * length);
  for (int64_t index = 0; index < batches; ++index) {
    FillBatch(spec, static_cast<uint64_t>(index), batch.Buffers());
    for (size_t first = 0; first < batch.ids.size(); first += length) {
      if (absl::Status status = file->Append(Line(batch, first, length)); !status.ok()) return status;
    }
  }
  return file->Finish();
}

}  // namespace attnfleet::trainer
