#include "worker/trainer/synthetic.h"

#include <algorithm>
#include <utility>

#include "worker/trainer/document.h"
#include "worker/trainer/image.h"
#include "worker/trainer/random.h"

namespace attnfleet::trainer {

SyntheticSpec MakeSyntheticSpec(const Config& config) {
  SyntheticSpec spec;
  spec.batch = config.batch;
  spec.sequence_length = config.sequence_length;
  spec.vocabulary = config.model.vocabulary;
  spec.labels = config.model.labels;
  spec.boxes = config.boxes;
  spec.seed = config.seed;
  if (config.model.image) spec.image_size = config.model.image_size;
  return spec;
}

void FillBatch(const SyntheticSpec& spec, uint64_t index, const BatchBuffers& buffers) {
  FillPixels(spec.seed, index, buffers.pixels);
  if (spec.boxes == Boxes::kDocument) return FillDocumentBatch(spec, index, buffers);
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
