#include "worker/trainer/document_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/trainer/document_file.h"

namespace attnfleet::trainer {
namespace {

struct Filled {
  std::vector<int64_t> ids, boxes, labels, mask;

  explicit Filled(const SyntheticSpec& spec) {
    const size_t tokens = static_cast<size_t>(spec.batch * spec.sequence_length);
    for (std::vector<int64_t>* values : {&ids, &labels, &mask}) values->resize(tokens);
    boxes.resize(4 * tokens);
  }
  BatchBuffers Buffers() { return {ids.data(), boxes.data(), labels.data(), mask.data()}; }
  bool operator==(const Filled&) const = default;
};

TEST(DocumentWriter, WhatIsWrittenReadsAsTheSameBatches) {
  for (const Boxes boxes : {Boxes::kDocument, Boxes::kRandom}) {
    SyntheticSpec spec{.batch = 4, .sequence_length = 64, .vocabulary = 100, .labels = 10, .boxes = boxes, .seed = 7};
    const std::string path = absl::StrCat(testing::TempDir(), "written.jsonl");
    ASSERT_TRUE(WriteDocuments(spec, /*batches=*/3, path).ok());
    const auto file = DocumentFile::Read(path, {spec.sequence_length, spec.vocabulary, spec.labels});
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(file->size(), 12);
    for (uint64_t index = 0; index < 3; ++index) {
      Filled synthetic(spec), read(spec);
      FillBatch(spec, index, synthetic.Buffers());
      file->FillBatch(spec.batch, spec.seed, index, read.Buffers());
      EXPECT_EQ(synthetic, read) << index;
    }
  }
}

TEST(DocumentWriter, AMissingFolderIsAnError) {
  const SyntheticSpec spec{.batch = 1, .sequence_length = 8, .vocabulary = 100, .labels = 10};
  EXPECT_THAT(std::string(WriteDocuments(spec, 1, "/nonexistent/f").message()),
              testing::HasSubstr("/nonexistent/f cannot be created"));
}

}  // namespace
}  // namespace attnfleet::trainer
