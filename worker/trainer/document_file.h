#ifndef ATTNFLEET_WORKER_TRAINER_DOCUMENT_FILE_H_
#define ATTNFLEET_WORKER_TRAINER_DOCUMENT_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/trainer/synthetic.h"

namespace attnfleet::trainer {

// What the model can take.
struct DocumentLimits {
  int64_t sequence_length = 0;
  int64_t vocabulary = 0;
  int64_t labels = 0;
};

// Real tokenised documents: JSON Lines, one document a line,
//   {"ids": [0, 713, 2], "boxes": [[0, 0, 0, 0], [54, 80, 97, 92], [0, 0, 0, 0]], "labels": [-100, 3, -100]}
// all of it in memory, cut to the sequence length: at most 2^24 tokens, 256 MiB. A line may have 16 MiB.
class DocumentFile {
 public:
  // INVALID_ARGUMENT is one line that names the file, the line, the field, and what would be right; NOT_FOUND.
  static absl::StatusOr<DocumentFile> Read(const std::string& path, const DocumentLimits& limits);

  int64_t size() const { return static_cast<int64_t>(ends_.size()); }
  // Some document is shorter than the sequence length.
  bool padded() const { return padded_; }

  // Fills batch number `index`, padded on the right as Hugging Face's processor does: id 1, box 0, label -100, mask 0.
  // First all documents in the file's order, then again and again, each time shuffled by the seed.
  void FillBatch(int64_t batch, uint64_t seed, uint64_t index, const BatchBuffers& buffers) const;

 private:
  struct Token {
    int32_t id;
    int16_t box[4];
    int16_t label;
  };

  explicit DocumentFile(const DocumentLimits& limits) : limits_(limits) {}
  absl::Status Add(const std::string& line);

  DocumentLimits limits_;
  std::vector<Token> tokens_;
  std::vector<int64_t> ends_;  // of each document's tokens
  bool padded_ = false;
  bool labelled_ = false;
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_DOCUMENT_FILE_H_
