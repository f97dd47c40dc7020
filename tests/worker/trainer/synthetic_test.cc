#include "worker/trainer/synthetic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace attnfleet::trainer {
namespace {

struct Filled {
  std::vector<int64_t> ids, boxes, labels, mask;
  bool operator==(const Filled&) const = default;
};

Filled Fill(const SyntheticSpec& spec, uint64_t index) {
  const size_t tokens = static_cast<size_t>(spec.batch * spec.sequence_length);
  Filled batch{std::vector<int64_t>(tokens), std::vector<int64_t>(4 * tokens), std::vector<int64_t>(tokens),
               std::vector<int64_t>(tokens)};
  FillBatch(spec, index, {batch.ids.data(), batch.boxes.data(), batch.labels.data(), batch.mask.data()});
  return batch;
}

const SyntheticSpec kSpec{.batch = 16, .sequence_length = 512, .vocabulary = 100, .labels = 10, .seed = 7};

TEST(Synthetic, DependsOnSeedAndIndexAlone) {
  EXPECT_EQ(Fill(kSpec, 3), Fill(kSpec, 3));
  EXPECT_NE(Fill(kSpec, 3).ids, Fill(kSpec, 4).ids);
  SyntheticSpec other = kSpec;
  other.seed = 8;
  EXPECT_NE(Fill(kSpec, 3).ids, Fill(other, 3).ids);
}

TEST(Synthetic, ValuesCoverTheirRangesAndNoMore) {
  const Filled batch = Fill(kSpec, 0);
  EXPECT_EQ(*std::min_element(batch.ids.begin(), batch.ids.end()), 0);
  EXPECT_EQ(*std::max_element(batch.ids.begin(), batch.ids.end()), 99);
  EXPECT_EQ(*std::min_element(batch.labels.begin(), batch.labels.end()), 0);
  EXPECT_EQ(*std::max_element(batch.labels.begin(), batch.labels.end()), 9);
  EXPECT_EQ(*std::max_element(batch.boxes.begin(), batch.boxes.end()), 1000);
  EXPECT_TRUE(std::all_of(batch.mask.begin(), batch.mask.end(), [](int64_t m) { return m == 1; }));
  for (size_t i = 0; i < batch.boxes.size(); i += 4) {
    ASSERT_LE(batch.boxes[i], batch.boxes[i + 2]);
    ASSERT_LE(batch.boxes[i + 1], batch.boxes[i + 3]);
  }
}

TEST(Synthetic, IdsAreUniform) {
  std::vector<int> counts(100);
  for (const int64_t id : Fill(kSpec, 0).ids) ++counts[static_cast<size_t>(id)];
  double chi_square = 0;  // 99 degrees of freedom: mean 99, deviation 14
  for (const int count : counts) chi_square += (count - 81.92) * (count - 81.92) / 81.92;
  EXPECT_LT(chi_square, 160);
}

TEST(Synthetic, UnitBoxesAreOnes) {
  SyntheticSpec spec = kSpec;
  spec.boxes = Boxes::kUnit;
  const Filled batch = Fill(spec, 0);
  EXPECT_TRUE(std::all_of(batch.boxes.begin(), batch.boxes.end(), [](int64_t b) { return b == 1; }));
}

}  // namespace
}  // namespace attnfleet::trainer
