#include "worker/trainer/image.h"

#include "worker/trainer/random.h"

namespace attnfleet::trainer {
namespace {

constexpr int64_t kLargestCoordinate = 1000;
constexpr uint64_t kPixelStream = 0x70697865;  // apart from the stream that fills the batch's ids and boxes

}  // namespace

std::vector<std::array<int64_t, 4>> VisualBoxes(int64_t patches_per_side) {
  std::vector<std::array<int64_t, 4>> boxes = {{1, 1, kLargestCoordinate - 1, kLargestCoordinate - 1}};
  const auto edge = [&](int64_t k) { return kLargestCoordinate * k / patches_per_side; };
  for (int64_t row = 0; row < patches_per_side; ++row) {
    for (int64_t column = 0; column < patches_per_side; ++column) {
      boxes.push_back({edge(column), edge(row), edge(column + 1), edge(row + 1)});
    }
  }
  return boxes;
}

void FillPixels(uint64_t seed, uint64_t index, std::span<float> pixels) {
  constexpr int64_t kLevels = 1 << 24;  // what a float holds
  Random random(seed ^ kPixelStream, index);
  for (float& pixel : pixels) pixel = static_cast<float>(random.Below(kLevels)) * (2.0F / kLevels) - 1.0F;
}

}  // namespace attnfleet::trainer
