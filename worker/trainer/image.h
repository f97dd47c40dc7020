#ifndef ATTNFLEET_WORKER_TRAINER_IMAGE_H_
#define ATTNFLEET_WORKER_TRAINER_IMAGE_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace attnfleet::trainer {

// The boxes (x0, y0, x1, y1) of the visual tokens: of the token for the whole image, then of the patches, row by row
// (Hugging Face's create_visual_bbox).
std::vector<std::array<int64_t, 4>> VisualBoxes(int64_t patches_per_side);

// Synthetic pixels, uniform in [-1, 1) as a processor's normalisation leaves them. Depends on the seed and the batch's
// index alone.
void FillPixels(uint64_t seed, uint64_t index, std::span<float> pixels);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_IMAGE_H_
