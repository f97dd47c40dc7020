#ifndef ATTNFLEET_WORKER_TRAINER_RANDOM_H_
#define ATTNFLEET_WORKER_TRAINER_RANDOM_H_

#include <cstdint>

namespace attnfleet::trainer {

// SplitMix64: a counter through a mixing function, so that streams of different keys are independent. Not a standard
// library engine: their distributions differ between libraries.
class Random {
 public:
  Random(uint64_t seed, uint64_t index) : state_(Mix(seed) ^ Mix(~index)) {}

  // Uniform in [0, bound), bound < 2^32 (the multiplication's bias is below 2^-32 per value).
  int64_t Below(int64_t bound) {
    state_ += 0x9e3779b97f4a7c15;
    return static_cast<int64_t>(((Mix(state_) >> 32) * static_cast<uint64_t>(bound)) >> 32);
  }

  // Uniform in [least, most].
  int64_t Between(int64_t least, int64_t most) { return least + Below(most - least + 1); }

 private:
  static uint64_t Mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  uint64_t state_;
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_RANDOM_H_
