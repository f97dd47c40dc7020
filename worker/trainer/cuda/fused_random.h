#ifndef ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_RANDOM_H_
#define ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_RANDOM_H_

// The random bits of the fused attention's dropout: a function of seed, offset, sequence, head, query and key alone, so
// that the backward pass draws them again in whatever order it likes. Compiled for the host and for the GPU.

#include <cstdint>

#ifdef __CUDACC__
#define ATTNFLEET_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define ATTNFLEET_HOST_DEVICE inline
#endif

namespace attnfleet::trainer {

struct Random128 {
  uint32_t word[4];
};

inline constexpr int kPhiloxRounds = 7;  // the fewest that pass BigCrush

// Which probabilities are dropped.
struct FusedDropout {
  uint32_t keys[2 * kPhiloxRounds];  // Philox's key of each round
  uint32_t offset[2];                // low and high half: tells calls with the same seed apart
  const int64_t* replayed;           // null, or on the device: what each replay of a CUDA graph adds to the offset
  uint32_t threshold;                // kept are those whose DropoutBits() are below it; 65536 keeps all
  uint32_t keep_below;               // the same as the half precision number that kept ones are below, in both halves
};

// The GPU compares two times 16 random bits with one instruction as numbers of half precision, and whatever is no
// number is below all. This is how many of the 65536 come before: those that are no number, -inf to -0, +0 to +inf.
ATTNFLEET_HOST_DEVICE uint32_t RankAsHalf(uint32_t bits) {
  const uint32_t magnitude = bits & 0x7FFF, negative = bits >> 15;
  if (magnitude > 0x7C00) return magnitude - 0x7C01 + negative * 0x3FF;
  return negative != 0 ? 0x7FE + 0x7C00 - magnitude : 0x7FE + 0x7C01 + magnitude;
}

// The 2046 that are no numbers are always kept.
inline constexpr double kLargestFusedDropout = 1 - 2046 / 65536.0;

// Drops with probability p, 0 <= p <= kLargestFusedDropout, to the nearest 1 / 65536; but at 31745 / 65536 to the next
// one, since -0 and +0 are the same number.
inline FusedDropout MakeFusedDropout(uint64_t seed, uint64_t offset, double p) {
  FusedDropout dropout{};
  for (uint32_t round = 0; round < kPhiloxRounds; ++round) {
    dropout.keys[2 * round] = static_cast<uint32_t>(seed) + round * 0x9E3779B9;
    dropout.keys[2 * round + 1] = static_cast<uint32_t>(seed >> 32) + round * 0xBB67AE85;
  }
  dropout.offset[0] = static_cast<uint32_t>(offset);
  dropout.offset[1] = static_cast<uint32_t>(offset >> 32);
  constexpr uint32_t kNoNumbers = 0x7FE, kZero = kNoNumbers + 0x7C00;  // ranks of -inf and of -0
  uint32_t threshold = static_cast<uint32_t>(65536 * (1 - p) + 0.5);
  threshold = threshold < kNoNumbers ? kNoNumbers : threshold == kZero + 1 ? kZero : threshold;
  dropout.threshold = threshold;
  const uint32_t below = threshold <= kZero ? 0xFC00 - (threshold - kNoNumbers) : threshold - kZero - 1;
  dropout.keep_below = below << 16 | below;
  return dropout;
}

// Philox4x32 (Salmon et al., 2011).
ATTNFLEET_HOST_DEVICE Random128 Philox(const uint32_t (&keys)[2 * kPhiloxRounds], uint32_t c0, uint32_t c1, uint32_t c2,
                                       uint32_t c3) {
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * c0;
    const uint64_t product1 = uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ keys[2 * round];
    c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ keys[2 * round + 1];
    c3 = static_cast<uint32_t>(product0);
  }
  return {{c0, c1, c2, c3}};
}

// One draw serves eight probabilities with 16 bits each: the queries 16 i + r and 16 i + r + 8, r < 8, of group
// 8 i + r, times the keys 16 j + 2 c, + 8, + 1 and + 9, c < 4, of group 4 j + c. So that a lane of an mma.m16n8k16
// fragment needs one draw for a block of 16 x 16 whichever of the two sides its rows are. Lengths up to 2^17.
// `call` is the offset's low half, with what a graph has added.
ATTNFLEET_HOST_DEVICE Random128 DropoutDraw(const FusedDropout& dropout, uint32_t call, uint32_t sequence_head,
                                            uint32_t query_group, uint32_t key_group) {
  return Philox(dropout.keys, query_group | key_group << 16, call, sequence_head, dropout.offset[1]);
}

// The 16 bits of one probability, as their rank.
ATTNFLEET_HOST_DEVICE uint32_t DropoutBits(const FusedDropout& dropout, uint32_t sequence_head, uint32_t query,
                                           uint32_t key) {
  const Random128 draw =
      DropoutDraw(dropout, dropout.offset[0], sequence_head, query / 16 * 8 + query % 8, key / 16 * 4 + key % 8 / 2);
  const uint32_t word = draw.word[key % 2 * 2 + key / 8 % 2];
  return RankAsHalf(query / 8 % 2 == 0 ? word & 0xFFFF : word >> 16);
}

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_CUDA_FUSED_RANDOM_H_
