#ifndef ATTNFLEET_WORKER_TRAINER_SYNTHETIC_H_
#define ATTNFLEET_WORKER_TRAINER_SYNTHETIC_H_

#include <cstdint>
#include <span>

#include "worker/trainer/config.h"

namespace attnfleet::trainer {

// What synthetic batches look like.
struct SyntheticSpec {
  int64_t batch = 0;
  int64_t sequence_length = 0;
  int64_t vocabulary = 0;
  int64_t labels = 0;
  Boxes boxes = Boxes::kRandom;
  uint64_t seed = 0;
  int64_t image_size = 0;  // 0: without images
};

SyntheticSpec MakeSyntheticSpec(const Config& config);

// Where one batch goes; row-major. What random and unit boxes come with; documents: see document.h.
struct BatchBuffers {
  int64_t* ids = nullptr;             // (B, S), uniform in [0, vocabulary), padding id included as in the published run
  int64_t* boxes = nullptr;           // (B, S, 4): x0 <= x1, y0 <= y1, in [0, 1000]
  int64_t* labels = nullptr;          // (B, S), uniform in [0, labels)
  int64_t* attention_mask = nullptr;  // (B, S), all ones
  std::span<float> pixels = {};       // (B, 3, size, size), see image.h; empty without images
};

// Fills batch number `index`. Depends on the spec and the index alone, whichever thread makes it and when.
void FillBatch(const SyntheticSpec& spec, uint64_t index, const BatchBuffers& buffers);

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_SYNTHETIC_H_
