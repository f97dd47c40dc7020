#include "worker/trainer/image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace attnfleet::trainer {
namespace {

TEST(Image, VisualBoxesAreTruncatedFourteenths) {
  const auto boxes = VisualBoxes(14);
  ASSERT_EQ(boxes.size(), 197u);
  EXPECT_THAT(boxes[0], testing::ElementsAre(1, 1, 999, 999));
  EXPECT_THAT(boxes[1], testing::ElementsAre(0, 0, 71, 71));
  EXPECT_THAT(boxes[2], testing::ElementsAre(71, 0, 142, 71));   // 1000 * 2 / 14 = 142.86
  EXPECT_THAT(boxes[15], testing::ElementsAre(0, 71, 71, 142));  // the second row
  EXPECT_THAT(boxes[196], testing::ElementsAre(928, 928, 1000, 1000));
}

TEST(Image, PixelsDependOnSeedAndIndexAlone) {
  const auto pixels = [](uint64_t seed, uint64_t index) {
    std::vector<float> values(10000);
    FillPixels(seed, index, values);
    return values;
  };
  EXPECT_EQ(pixels(1, 2), pixels(1, 2));
  EXPECT_NE(pixels(1, 2), pixels(1, 3));
  EXPECT_NE(pixels(1, 2), pixels(2, 2));
  const std::vector<float> values = pixels(1, 2);
  EXPECT_GE(*std::min_element(values.begin(), values.end()), -1);
  EXPECT_LT(*std::max_element(values.begin(), values.end()), 1);
  EXPECT_LT(*std::min_element(values.begin(), values.end()), -0.99);
  EXPECT_GT(*std::max_element(values.begin(), values.end()), 0.99);
}

}  // namespace
}  // namespace attnfleet::trainer
