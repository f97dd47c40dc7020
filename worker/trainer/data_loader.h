#ifndef ATTNFLEET_WORKER_TRAINER_DATA_LOADER_H_
#define ATTNFLEET_WORKER_TRAINER_DATA_LOADER_H_

#include <functional>

#include "worker/trainer/model.h"
#include "worker/trainer/prefetch_queue.h"
#include "worker/trainer/synthetic.h"

namespace attnfleet::trainer {

// Fills batch number `index`; called by several threads at once.
using BatchFiller = std::function<void(uint64_t index, const BatchBuffers& buffers)>;

struct BatchShape {
  int64_t batch = 0;
  int64_t sequence_length = 0;
  int64_t image_size = 0;  // 0: without images
};

// Batches on the host, made ahead by threads. The sequence depends on the filler alone.
class DataLoader {
 public:
  // `pinned` needs the CUDA module: page-locked memory, which a copy to the device can read while the host goes on.
  DataLoader(const BatchShape& shape, const BatchFiller& fill, int threads, bool pinned);
  // Of synthetic batches.
  DataLoader(const SyntheticSpec& spec, int threads, bool pinned);

  Batch Next() { return queue_.Next(); }

 private:
  PrefetchQueue<Batch> queue_;
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_DATA_LOADER_H_
