#include "worker/trainer/data_loader.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>

namespace attnfleet::trainer {
namespace {

constexpr int64_t kMostBytesAhead = int64_t{2} << 30;

// Two batches ahead for each thread, as PyTorch's DataLoader does, but not for ever more: a batch can be 4 MB, and
// 600 KB for each image.
uint64_t Capacity(int threads, const BatchShape& shape) {
  const int64_t pixels = kImageChannels * shape.image_size * shape.image_size;
  const int64_t bytes = shape.batch * (7 * 8 * shape.sequence_length + 4 * pixels);
  return static_cast<uint64_t>(std::clamp<int64_t>(kMostBytesAhead / bytes, 1, std::clamp(2 * threads, 1, 64)));
}

Batch MakeBatch(const BatchShape& shape, const BatchFiller& fill, bool pinned, uint64_t index) {
  const at::TensorOptions options = at::TensorOptions(at::kLong).pinned_memory(pinned);
  const int64_t tokens = shape.batch * shape.sequence_length;
  Batch batch;
  batch.ids = at::empty({shape.batch, shape.sequence_length}, options);
  batch.boxes = at::empty({shape.batch, shape.sequence_length, 4}, options);
  batch.labels = at::empty({shape.batch, shape.sequence_length}, options);
  batch.attention_mask = at::empty({shape.batch, shape.sequence_length}, options);
  int64_t* const mask = batch.attention_mask.mutable_data_ptr<int64_t>();
  BatchBuffers buffers{batch.ids.mutable_data_ptr<int64_t>(),
                       batch.boxes.mutable_data_ptr<int64_t>(),
                       batch.labels.mutable_data_ptr<int64_t>(),
                       mask,
                       {}};
  if (shape.image_size > 0) {
    batch.image =
        at::empty({shape.batch, kImageChannels, shape.image_size, shape.image_size}, options.dtype(at::kFloat));
    buffers.pixels = {batch.image.mutable_data_ptr<float>(), static_cast<size_t>(batch.image.numel())};
  }
  fill(index, buffers);
  batch.tokens = std::accumulate(mask, mask + tokens, int64_t{0});
  batch.padded = batch.tokens < tokens;
  return batch;
}

}  // namespace

DataLoader::DataLoader(const BatchShape& shape, const BatchFiller& fill, int threads, bool pinned)
    : queue_(threads, Capacity(threads, shape), [=](uint64_t index) { return MakeBatch(shape, fill, pinned, index); }) {
}

DataLoader::DataLoader(const SyntheticSpec& spec, int threads, bool pinned)
    : DataLoader(
          {spec.batch, spec.sequence_length, spec.image_size},
          [spec](uint64_t index, const BatchBuffers& buffers) { FillBatch(spec, index, buffers); }, threads, pinned) {}

}  // namespace attnfleet::trainer
