#include "worker/trainer/document.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <vector>

namespace attnfleet::trainer {
namespace {

struct Filled {
  std::vector<int64_t> ids, boxes, labels, mask;
  bool operator==(const Filled&) const = default;
};

SyntheticSpec Spec(int64_t batch = 16, int64_t length = 512) {
  SyntheticSpec spec{.batch = batch, .sequence_length = length, .vocabulary = 100, .labels = 10, .seed = 7};
  spec.boxes = Boxes::kDocument;
  return spec;
}

Filled Fill(const SyntheticSpec& spec, uint64_t index) {
  const size_t tokens = static_cast<size_t>(spec.batch * spec.sequence_length);
  Filled batch{std::vector<int64_t>(tokens), std::vector<int64_t>(4 * tokens), std::vector<int64_t>(tokens),
               std::vector<int64_t>(tokens)};
  FillBatch(spec, index, {batch.ids.data(), batch.boxes.data(), batch.labels.data(), batch.mask.data()});
  return batch;
}

TEST(Document, DependsOnSeedAndIndexAlone) {
  SyntheticSpec other = Spec();
  other.seed = 8;
  EXPECT_EQ(Fill(Spec(), 3), Fill(Spec(), 3));
  EXPECT_NE(Fill(Spec(), 3).boxes, Fill(Spec(), 4).boxes);
  EXPECT_NE(Fill(Spec(), 3).boxes, Fill(other, 3).boxes);
}

TEST(Document, BoxesLieOnThePage) {
  for (const int64_t length : {1, 2, 7, 8, 9, 64, 512, 4096}) {
    const Filled batch = Fill(Spec(16, length), 0);
    for (size_t i = 0; i < batch.boxes.size(); i += 4) {
      ASSERT_GE(batch.boxes[i], 0);
      ASSERT_GE(batch.boxes[i + 1], 0);
      ASSERT_LE(batch.boxes[i], batch.boxes[i + 2]);
      ASSERT_LE(batch.boxes[i + 1], batch.boxes[i + 3]);
      ASSERT_LE(batch.boxes[i + 2], 1000);
      ASSERT_LE(batch.boxes[i + 3], 1000);
    }
  }
}

// As Hugging Face's processor does: <s> words </s>, then padding on the right.
TEST(Document, SequencesEndInPaddingOfUnequalLength) {
  const SyntheticSpec spec = Spec();
  const Filled batch = Fill(spec, 0);
  std::set<int64_t> lengths;
  for (int64_t b = 0; b < spec.batch; ++b) {
    const size_t first = static_cast<size_t>(b * spec.sequence_length), end = first + 512;
    const size_t real = static_cast<size_t>(std::count(batch.mask.begin() + static_cast<int64_t>(first),
                                                       batch.mask.begin() + static_cast<int64_t>(end), 1));
    lengths.insert(static_cast<int64_t>(real));
    EXPECT_GE(real, 128u);
    EXPECT_EQ(batch.ids[first], 0);
    EXPECT_EQ(batch.ids[first + real - 1], 2);
    for (size_t i = first; i < end; ++i) {
      const bool padding = i >= first + real, special = i == first || i == first + real - 1;
      ASSERT_EQ(batch.mask[i], padding ? 0 : 1);
      ASSERT_EQ(batch.ids[i] == 1, padding);
      if (!padding && !special) continue;
      ASSERT_EQ(batch.labels[i], -100);
      ASSERT_TRUE(std::all_of(&batch.boxes[4 * i], &batch.boxes[4 * i] + 4, [](int64_t x) { return x == 0; }));
    }
  }
  EXPECT_GT(lengths.size(), 8u);
}

// Reading order: along a line to the right, and the next line below, but for a new column or page.
TEST(Document, WordsComeInReadingOrder) {
  const Filled batch = Fill(Spec(1, 4096), 1);
  int same_line = 0, next_line = 0, elsewhere = 0;
  for (size_t i = 2; i + 1 < batch.ids.size() && batch.mask[i + 1] == 1; ++i) {
    const int64_t* before = &batch.boxes[4 * (i - 1)];
    const int64_t* box = &batch.boxes[4 * i];
    if (std::equal(box, box + 4, before)) continue;
    const bool right = box[1] == before[1] && box[0] > before[2], below = box[1] >= before[3] && box[0] < before[0];
    ++(right ? same_line : below ? next_line : elsewhere);
  }
  EXPECT_GT(next_line, 50);
  EXPECT_GT(same_line, 3 * next_line);
  EXPECT_LT(elsewhere, next_line / 2);
}

TEST(Document, TokensOfAWordShareItsBoxAndTheFirstHasTheLabel) {
  const SyntheticSpec spec = Spec(1, 4096);
  const Filled batch = Fill(spec, 2);
  int64_t words = 0, tokens = 0;
  for (size_t i = 1; i + 1 < batch.ids.size() && batch.mask[i + 1] == 1; ++i) {
    ++tokens;
    if (batch.labels[i] != -100) {
      ++words;
      ASSERT_GE(batch.labels[i], 0);
      ASSERT_LT(batch.labels[i], 10);
      continue;
    }
    ASSERT_TRUE(std::equal(&batch.boxes[4 * i], &batch.boxes[4 * i] + 4, &batch.boxes[4 * i - 4]));
  }
  EXPECT_NEAR(static_cast<double>(tokens) / static_cast<double>(words), 1.7, 0.2);
}

// A mean over no label would be no number.
TEST(Document, EveryBatchHasALabel) {
  for (const int64_t length : {1, 2, 3, 7, 8, 9, 16}) {
    for (uint64_t index = 0; index < 50; ++index) {
      const Filled batch = Fill(Spec(1, length), index);
      ASSERT_TRUE(std::any_of(batch.labels.begin(), batch.labels.end(), [](int64_t l) { return l >= 0; })) << length;
    }
  }
}

TEST(Document, IsMadeFasterThanAnyGpuTrains) {
  const SyntheticSpec spec = Spec(128, 512);
  const auto begin = std::chrono::steady_clock::now();
  for (uint64_t index = 0; index < 10; ++index) Fill(spec, index);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  RecordProperty("batches_per_second", static_cast<int>(10 / seconds.count()));
  EXPECT_GT(10 / seconds.count(), 10) << "batches of 128 x 512 per second and thread";
}

}  // namespace
}  // namespace attnfleet::trainer
