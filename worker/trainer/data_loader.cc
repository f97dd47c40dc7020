#include "worker/trainer/data_loader.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>

namespace attnfleet::trainer {
namespace {

// Two batches ahead for each thread, as PyTorch's DataLoader does, but not for ever more: a batch can be 4 MB.
uint64_t Capacity(int threads) { return static_cast<uint64_t>(std::clamp(2 * threads, 1, 64)); }

Batch MakeBatch(int64_t size, int64_t sequence_length, const BatchFiller& fill, bool pinned, uint64_t index) {
  const at::TensorOptions options = at::TensorOptions(at::kLong).pinned_memory(pinned);
  Batch batch;
  batch.ids = at::empty({size, sequence_length}, options);
  batch.boxes = at::empty({size, sequence_length, 4}, options);
  batch.labels = at::empty({size, sequence_length}, options);
  batch.attention_mask = at::empty({size, sequence_length}, options);
  int64_t* const mask = batch.attention_mask.mutable_data_ptr<int64_t>();
  fill(index, {batch.ids.mutable_data_ptr<int64_t>(), batch.boxes.mutable_data_ptr<int64_t>(),
               batch.labels.mutable_data_ptr<int64_t>(), mask});
  batch.tokens = std::accumulate(mask, mask + size * sequence_length, int64_t{0});
  batch.padded = batch.tokens < size * sequence_length;
  return batch;
}

}  // namespace

DataLoader::DataLoader(int64_t batch, int64_t sequence_length, const BatchFiller& fill, int threads, bool pinned)
    : queue_(threads, Capacity(threads),
             [=](uint64_t index) { return MakeBatch(batch, sequence_length, fill, pinned, index); }) {}

DataLoader::DataLoader(const SyntheticSpec& spec, int threads, bool pinned)
    : DataLoader(
          spec.batch, spec.sequence_length,
          [spec](uint64_t index, const BatchBuffers& buffers) { FillBatch(spec, index, buffers); }, threads, pinned) {}

}  // namespace attnfleet::trainer
