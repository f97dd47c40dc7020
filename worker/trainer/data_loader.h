#ifndef ATTNFLEET_WORKER_TRAINER_DATA_LOADER_H_
#define ATTNFLEET_WORKER_TRAINER_DATA_LOADER_H_

#include "worker/trainer/model.h"
#include "worker/trainer/prefetch_queue.h"
#include "worker/trainer/synthetic.h"

namespace attnfleet::trainer {

// Synthetic batches on the host, made ahead by threads. The sequence depends on the spec alone.
class DataLoader {
 public:
  // `pinned` needs the CUDA module: page-locked memory, which a copy to the device can read while the host goes on.
  DataLoader(const SyntheticSpec& spec, int threads, bool pinned);

  Batch Next() { return queue_.Next(); }

 private:
  PrefetchQueue<Batch> queue_;
};

}  // namespace attnfleet::trainer

#endif  // ATTNFLEET_WORKER_TRAINER_DATA_LOADER_H_
