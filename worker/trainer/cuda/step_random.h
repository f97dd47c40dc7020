#ifndef ATTNFLEET_WORKER_TRAINER_CUDA_STEP_RANDOM_H_
#define ATTNFLEET_WORKER_TRAINER_CUDA_STEP_RANDOM_H_

// The random bits of the fused step's dropouts outside attention: a function of seed, pass, site and element alone, so
// that no mask is ever stored. Compiled for the host and for the GPU.

#include "worker/trainer/cuda/fused_random.h"

namespace attnfleet::trainer {

inline constexpr uint32_t kStepKeepsAll = 65536;  // as a threshold

// Elements that are kept have 16 bits below the threshold: the keep rate is the nearest 1 / 65536.
inline uint32_t StepThreshold(double p) { return static_cast<uint32_t>(kStepKeepsAll * (1 - p) + 0.5); }

// Bits for the eight elements 8 group, ... of a site: a place in the model where something is dropped.
ATTNFLEET_HOST_DEVICE Random128 StepDraw(uint64_t seed, uint64_t pass, uint32_t site, uint32_t group) {
  seed ^= 0xA0761D6478BD642F;  // apart from what attention draws with the same seed
  uint32_t keys[2 * kPhiloxRounds];
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
  for (uint32_t round = 0; round < kPhiloxRounds; ++round) {
    keys[2 * round] = static_cast<uint32_t>(seed) + round * 0x9E3779B9;
    keys[2 * round + 1] = static_cast<uint32_t>(seed >> 32) + round * 0xBB67AE85;
  }
  return Philox(keys, group, static_cast<uint32_t>(pass), site, static_cast<uint32_t>(pass >> 32));
}

// The 16 bits of the element `index`, 0 to 7, of a draw's eight.
ATTNFLEET_HOST_DEVICE uint32_t StepBits(const Random128& draw, uint32_t index) {
  const uint32_t word = draw.word[index / 2];
  return index % 2 == 0 ? word & 0xFFFF : word >> 16;
}

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_CUDA_STEP_RANDOM_H_
