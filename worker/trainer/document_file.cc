#include "worker/trainer/document_file.h"

#include <algorithm>
#include <bit>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "worker/trainer/model_config.h"
#include "worker/trainer/random.h"

namespace attnfleet::trainer {
namespace {

using Json = nlohmann::json;

constexpr size_t kMostTokens = size_t{1} << 24;
constexpr std::streamsize kLongestLine = 1 << 24;
constexpr int64_t kLargestCoordinate = 1023;

absl::Status Invalid(const std::string& text) { return absl::InvalidArgumentError(text); }

absl::StatusOr<std::vector<int64_t>> Integers(const Json& array, const std::string& field) {
  if (!array.is_array()) return Invalid(field + ": missing or no list; give a list of integers");
  std::vector<int64_t> values;
  values.reserve(array.size());
  for (const Json& value : array) {
    if (!value.is_number_integer()) return Invalid(absl::StrCat(field, "[", values.size(), "]: no integer"));
    values.push_back(value.get<int64_t>());
  }
  return values;
}

absl::Status CheckBox(const std::vector<int64_t>& box, size_t index) {
  const std::string field = absl::StrCat("boxes[", index, "]: [", absl::StrJoin(box, ", "), "]");
  if (box.size() != 4) return Invalid(field + " is no box; give [x0, y0, x1, y1]");
  for (const int64_t value : box) {
    if (value < 0 || value > kLargestCoordinate) {
      return Invalid(absl::StrCat(field, " is outside 0 to ", kLargestCoordinate, "; scale the page to 1000 by 1000"));
    }
  }
  if (box[2] < box[0]) return Invalid(field + " has x1 < x0; give [x0, y0, x1, y1] with x0 <= x1");
  if (box[3] < box[1]) return Invalid(field + " has y1 < y0; give [x0, y0, x1, y1] with y0 <= y1");
  return absl::OkStatus();
}

// The place of element `i` of `count` in a permutation that `key` chooses: a Feistel network over the next power of 4,
// walked until it falls below `count`. So a batch needs no state but its number.
uint64_t Permute(uint64_t i, uint64_t count, uint64_t seed, uint64_t key) {
  const uint64_t half = (static_cast<uint64_t>(std::bit_width(count)) + 1) / 2;
  const uint64_t mask = (uint64_t{1} << half) - 1;
  do {
    for (uint64_t round = 0; round < 4; ++round) {
      const uint64_t left = i >> half, right = i & mask;
      Random random(seed ^ right << 32, 4 * key + round);
      i = right << half | (left ^ static_cast<uint64_t>(random.Below(static_cast<int64_t>(mask + 1))));
    }
  } while (i >= count);
  return i;
}

}  // namespace

absl::Status DocumentFile::Add(const std::string& line) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Invalid("no JSON object; give {\"ids\": [...], \"boxes\": [...], \"labels\": [...]}");
  const auto field = [&json](const char* name) { return json.contains(name) ? json[name] : Json(); };
  const absl::StatusOr<std::vector<int64_t>> ids = Integers(field("ids"), "ids");
  if (!ids.ok()) return ids.status();
  const absl::StatusOr<std::vector<int64_t>> labels = Integers(field("labels"), "labels");
  if (!labels.ok()) return labels.status();
  const Json boxes = field("boxes");
  if (!boxes.is_array()) return Invalid("boxes: missing or no list; give [[x0, y0, x1, y1], ...]");
  if (ids->empty()) return Invalid("ids: empty; give at least one token");
  for (const auto& [name, size] : {std::pair{"boxes", boxes.size()}, std::pair{"labels", labels->size()}}) {
    if (size != ids->size()) {
      return Invalid(absl::StrCat(name, ": ", size, " for ", ids->size(), " ids; give one for each"));
    }
  }
  const size_t kept = std::min(ids->size(), static_cast<size_t>(limits_.sequence_length));
  for (size_t i = 0; i < ids->size(); ++i) {
    const int64_t id = (*ids)[i], label = (*labels)[i];
    if (id < 0 || id >= limits_.vocabulary) {
      return Invalid(absl::StrCat("ids[", i, "]: ", id, " is outside the vocabulary; 0 to ", limits_.vocabulary - 1,
                                  " is possible"));
    }
    if (label != kIgnoredLabel && (label < 0 || label >= limits_.labels)) {
      return Invalid(absl::StrCat("labels[", i, "]: ", label, " is no label; 0 to ", limits_.labels - 1, " is possible",
                                  " (see --labels), and -100 for none"));
    }
    const absl::StatusOr<std::vector<int64_t>> box = Integers(boxes[i], absl::StrCat("boxes[", i, "]"));
    if (!box.ok()) return box.status();
    if (absl::Status status = CheckBox(*box, i); !status.ok()) return status;
    if (i >= kept) continue;
    if (tokens_.size() == kMostTokens) return Invalid("more than 16,777,216 tokens so far; give a smaller file");
    const auto coordinate = [&box](size_t k) { return static_cast<int16_t>((*box)[k]); };
    tokens_.push_back({static_cast<int32_t>(id),
                       {coordinate(0), coordinate(1), coordinate(2), coordinate(3)},
                       static_cast<int16_t>(label)});
    labelled_ = labelled_ || label != kIgnoredLabel;
  }
  ends_.push_back(static_cast<int64_t>(tokens_.size()));
  padded_ = padded_ || kept < static_cast<size_t>(limits_.sequence_length);
  return absl::OkStatus();
}

absl::StatusOr<DocumentFile> DocumentFile::Read(const std::string& path, const DocumentLimits& limits) {
  std::ifstream stream(path);
  if (!stream) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  DocumentFile file(limits);
  std::string line(kLongestLine, '\0');
  for (int64_t number = 1; stream.peek() != std::ifstream::traits_type::eof(); ++number) {
    stream.getline(line.data(), kLongestLine);
    if (stream.fail() && !stream.eof()) {
      return Invalid(absl::StrCat(path, ":", number, ": longer than 16 MiB; give one document a line"));
    }
    const std::string text = line.c_str();
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    if (absl::Status status = file.Add(text); !status.ok()) {
      return Invalid(absl::StrCat(path, ":", number, ": ", std::string(status.message())));
    }
  }
  if (stream.bad()) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  if (file.ends_.empty()) return Invalid(path + ": no document; give one JSON object a line");
  if (!file.labelled_) return Invalid(path + ": no label but -100, so there is no loss; label at least one token");
  return file;
}

void DocumentFile::FillBatch(int64_t batch, uint64_t seed, uint64_t index, const BatchBuffers& buffers) const {
  const uint64_t count = ends_.size();
  for (int64_t sequence = 0; sequence < batch; ++sequence) {
    const uint64_t drawn = index * static_cast<uint64_t>(batch) + static_cast<uint64_t>(sequence);
    const uint64_t pass = drawn / count;
    const uint64_t document = pass == 0 ? drawn : Permute(drawn % count, count, seed, pass);
    const int64_t begin = document == 0 ? 0 : ends_[document - 1];
    const int64_t length = ends_[document] - begin;
    for (int64_t i = 0; i < limits_.sequence_length; ++i) {
      const int64_t to = sequence * limits_.sequence_length + i;
      const bool real = i < length;
      const Token token =
          real ? tokens_[static_cast<size_t>(begin + i)] : Token{kPaddingId, {}, static_cast<int16_t>(kIgnoredLabel)};
      buffers.ids[to] = token.id;
      std::copy(token.box, token.box + 4, buffers.boxes + 4 * to);
      buffers.labels[to] = token.label;
      buffers.attention_mask[to] = real ? 1 : 0;
    }
  }
}

}  // namespace attnfleet::trainer
