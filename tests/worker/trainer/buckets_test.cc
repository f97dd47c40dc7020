#include "worker/trainer/buckets.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "worker/trainer/model_config.h"

namespace attnfleet::trainer {
namespace {

// Where the bucket of a distance grows by one, taken from Hugging Face's float arithmetic (shown in integers: n^8
// passes 8^8 16^k for the 1-D bias, n^16 passes 16^16 16^k for the 2-D one).
const std::vector<int64_t> kRelativeSteps = {1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91};
const std::vector<int64_t> kSpatialSteps = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,  12,  13,  14,  15, 16,
                                            20, 23, 27, 32, 39, 46, 54, 64, 77, 91, 108, 128, 153, 182, 216};

int64_t Expected(int64_t relative, int buckets, const std::vector<int64_t>& steps) {
  const int64_t distance = relative < 0 ? -relative : relative;
  const auto passed = std::count_if(steps.begin(), steps.end(), [&](int64_t step) { return step <= distance; });
  return passed + (relative > 0 ? buckets / 2 : 0);
}

TEST(Buckets, RelativeTableStepsWhereHuggingFaceDoes) {
  const std::vector<int64_t> table = BucketTable(8192, kRelativeBuckets, kRelativeMaxDistance);
  ASSERT_EQ(table.size(), 2 * 8192 + 1u);
  for (int64_t relative = -8192; relative <= 8192; ++relative) {
    ASSERT_EQ(table[static_cast<size_t>(relative + 8192)], Expected(relative, kRelativeBuckets, kRelativeSteps))
        << relative;
  }
}

TEST(Buckets, SpatialTableStepsWhereHuggingFaceDoes) {
  const std::vector<int64_t> table = BucketTable(1023, kSpatialBuckets, kSpatialMaxDistance);
  for (int64_t relative = -1023; relative <= 1023; ++relative) {
    ASSERT_EQ(table[static_cast<size_t>(relative + 1023)], Expected(relative, kSpatialBuckets, kSpatialSteps))
        << relative;
  }
}

// buckets.json holds, for each bias, [first difference, bucket] wherever Hugging Face's function changes its value.
void CompareWithHuggingFace(const char* bias, int buckets, int max_distance) {
  const nlohmann::json golden = nlohmann::json::parse(std::ifstream(ATTNFLEET_GOLDEN "/buckets.json"));
  const int64_t largest = golden["largest"];
  ASSERT_EQ(largest, 2048);
  const nlohmann::json& runs = golden[bias];
  const std::vector<int64_t> table = BucketTable(largest, buckets, max_distance);
  size_t run = 0;
  for (int64_t relative = -largest; relative <= largest; ++relative) {
    if (run + 1 < runs.size() && runs[run + 1][0] == relative) ++run;
    ASSERT_EQ(table[static_cast<size_t>(relative + largest)], runs[run][1].get<int64_t>()) << relative;
  }
  EXPECT_EQ(run + 1, runs.size());
}

TEST(Buckets, RelativeTableIsHuggingFaces) {
  CompareWithHuggingFace("relative", kRelativeBuckets, kRelativeMaxDistance);
}

TEST(Buckets, SpatialTableIsHuggingFaces) { CompareWithHuggingFace("spatial", kSpatialBuckets, kSpatialMaxDistance); }

}  // namespace
}  // namespace attnfleet::trainer
