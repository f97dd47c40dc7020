#include "worker/trainer/data_loader.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace attnfleet::trainer {
namespace {

// Two batches ahead for each thread, as PyTorch's DataLoader does, but not for ever more: a batch can be 4 MB.
uint64_t Capacity(int threads) { return static_cast<uint64_t>(std::clamp(2 * threads, 1, 64)); }

Batch MakeBatch(const SyntheticSpec& spec, bool pinned, uint64_t index) {
  const at::TensorOptions options = at::TensorOptions(at::kLong).pinned_memory(pinned);
  Batch batch;
  batch.ids = at::empty({spec.batch, spec.sequence_length}, options);
  batch.boxes = at::empty({spec.batch, spec.sequence_length, 4}, options);
  batch.labels = at::empty({spec.batch, spec.sequence_length}, options);
  batch.attention_mask = at::empty({spec.batch, spec.sequence_length}, options);
  FillBatch(spec, index,
            {batch.ids.mutable_data_ptr<int64_t>(), batch.boxes.mutable_data_ptr<int64_t>(),
             batch.labels.mutable_data_ptr<int64_t>(), batch.attention_mask.mutable_data_ptr<int64_t>()});
  return batch;
}

}  // namespace

DataLoader::DataLoader(const SyntheticSpec& spec, int threads, bool pinned)
    : queue_(threads, Capacity(threads), [spec, pinned](uint64_t index) { return MakeBatch(spec, pinned, index); }) {}

}  // namespace attnfleet::trainer
