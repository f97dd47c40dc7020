#include "worker/trainer/synthetic.h"

#include <algorithm>
#include <utility>

namespace attnfleet::trainer {
namespace {

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

 private:
  static uint64_t Mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  uint64_t state_;
};

}  // namespace

void FillBatch(const SyntheticSpec& spec, uint64_t index, const BatchBuffers& buffers) {
  Random random(spec.seed, index);
  const int64_t tokens = spec.batch * spec.sequence_length;
  for (int64_t i = 0; i < tokens; ++i) {
    buffers.ids[i] = random.Below(spec.vocabulary);
    buffers.labels[i] = random.Below(spec.labels);
    buffers.attention_mask[i] = 1;
    int64_t* box = buffers.boxes + 4 * i;
    if (spec.boxes == Boxes::kUnit) {
      std::fill(box, box + 4, 1);
      continue;
    }
    for (int k = 0; k < 4; ++k) box[k] = random.Below(1001);
    if (box[0] > box[2]) std::swap(box[0], box[2]);
    if (box[1] > box[3]) std::swap(box[1], box[3]);
  }
}

}  // namespace attnfleet::trainer
