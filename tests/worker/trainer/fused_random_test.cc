#include "worker/trainer/cuda/fused_random.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <set>
#include <tuple>
#include <vector>

namespace attnfleet::trainer {
namespace {

using testing::Each;
using testing::ElementsAre;

// Random123's known answers for philox4x32 with 7 rounds.
TEST(FusedRandom, PhiloxGivesTheKnownAnswers) {
  const auto draw = [](uint64_t seed, uint32_t counter) {
    const FusedDropout dropout = MakeFusedDropout(seed, 0, 0.1);
    return Philox(dropout.keys, counter, counter, counter, counter);
  };
  EXPECT_THAT(draw(0, 0).word, ElementsAre(0x5f6fb709, 0x0d893f64, 0x4f121f81, 0x4f730a48));
  EXPECT_THAT(draw(~uint64_t{0}, ~0u).word, ElementsAre(0x5207ddc2, 0x45165e59, 0x4d8ee751, 0x8c52f662));
}

// The value of half precision that has these bits.
double Half(uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 10 & 31), mantissa = static_cast<int>(bits & 1023);
  const double size = exponent == 31  ? (mantissa == 0 ? HUGE_VAL : std::nan(""))
                      : exponent == 0 ? std::ldexp(mantissa, -24)
                                      : std::ldexp(1024 + mantissa, exponent - 25);
  return bits >> 15 != 0 ? -size : size;
}

// What the GPU does: keeps what is not at least the threshold as a number of half precision.
TEST(FusedRandom, BitsBelowTheThresholdAreThoseThatTheGpuKeeps) {
  std::vector<int> seen(65536);
  for (uint32_t bits = 0; bits < 65536; ++bits) ++seen.at(RankAsHalf(bits));
  EXPECT_THAT(seen, Each(1));
  for (const double p :
       {1e-5, 0.01, 0.1, 1.0 / 3, 0.4844, 31744 / 65536.0, 31745 / 65536.0, 0.5, 0.9, kLargestFusedDropout}) {
    const FusedDropout dropout = MakeFusedDropout(1, 2, p);
    EXPECT_LE(std::abs(dropout.threshold / 65536.0 - (1 - p)), 1.0 / 65536) << p;
    EXPECT_EQ(dropout.keep_below >> 16, dropout.keep_below & 0xFFFF);
    for (uint32_t bits = 0; bits < 65536; ++bits) {
      const bool kept = !(Half(bits) >= Half(dropout.keep_below & 0xFFFF));
      ASSERT_EQ(kept, RankAsHalf(bits) < dropout.threshold) << p << " " << bits;
    }
  }
}

TEST(FusedRandom, KeepRateIsWithinOne65536th) {
  for (const double p : {0.0, 0.01, 0.1, 1.0 / 3, 0.5, 0.9}) {
    EXPECT_LE(std::abs(MakeFusedDropout(1, 2, p).threshold / 65536.0 - (1 - p)), 0.5 / 65536) << p;
  }
  EXPECT_EQ(MakeFusedDropout(1, 2, 0).threshold, 65536u);
}

// Every probability has 16 bits of its own: no two of a block of 16 x 16, or of neighbouring ones, share a place.
TEST(FusedRandom, EveryProbabilityHasBitsOfItsOwn) {
  std::set<std::tuple<uint32_t, uint32_t, uint32_t, bool>> places;
  for (uint32_t query = 0; query < 48; ++query) {
    for (uint32_t key = 0; key < 48; ++key) {
      places.insert({query / 16 * 8 + query % 8, key / 16 * 4 + key % 8 / 2, key % 2 * 2 + key / 8 % 2, query / 8 % 2});
    }
  }
  EXPECT_EQ(places.size(), 48u * 48u);
}

constexpr uint32_t kSide = 256;

// The part of a (kSide x kSide) square for which it holds.
double Part(const std::function<bool(uint32_t query, uint32_t key)>& holds) {
  int count = 0;
  for (uint32_t query = 0; query < kSide; ++query) {
    for (uint32_t key = 0; key < kSide; ++key) count += holds(query, key) ? 1 : 0;
  }
  return count / static_cast<double>(kSide * kSide);
}

TEST(FusedRandom, DropsAsManyAsAskedAndIndependently) {
  const FusedDropout dropout = MakeFusedDropout(0x1234567890abcdef, 5, 0.1);
  const FusedDropout other_call = MakeFusedDropout(0x1234567890abcdef, 6, 0.1);
  const FusedDropout other_seed = MakeFusedDropout(0x1234567890abcdee, 5, 0.1);
  const auto keeps = [](const FusedDropout& from, uint32_t head, uint32_t query, uint32_t key) {
    return DropoutBits(from, head, query, key) < from.threshold;
  };
  const double keep = dropout.threshold / 65536.0, both = keep * keep;
  const double deviation = 1.0 / kSide;  // of a mean of kSide^2 yes or no answers, at most half of this
  EXPECT_NEAR(Part([&](uint32_t i, uint32_t j) { return keeps(dropout, 3, i, j); }), keep, 2 * deviation);
  const auto both_kept = [&](const FusedDropout& from, uint32_t head, uint32_t di, uint32_t dj) {
    return Part([&](uint32_t i, uint32_t j) { return keeps(dropout, 3, i, j) && keeps(from, head, i + di, j + dj); });
  };
  EXPECT_NEAR(both_kept(dropout, 4, 0, 0), both, 2 * deviation) << "the next head";
  EXPECT_NEAR(both_kept(other_call, 3, 0, 0), both, 2 * deviation) << "the next call";
  EXPECT_NEAR(both_kept(other_seed, 3, 0, 0), both, 2 * deviation) << "another seed";
  for (const auto& [di, dj] : {std::pair{1u, 0u}, {0u, 1u}, {8u, 0u}, {0u, 8u}, {16u, 0u}, {0u, 16u}, {1u, 1u}}) {
    EXPECT_NEAR(both_kept(dropout, 3, di, dj), both, 2 * deviation) << di << " queries and " << dj << " keys further";
  }
}

}  // namespace
}  // namespace attnfleet::trainer
