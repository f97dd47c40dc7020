#ifndef ATTNFLEET_SERVER_STORE_READERS_H_
#define ATTNFLEET_SERVER_STORE_READERS_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/statusor.h"
#include "attnfleet/v1/benchmark.pb.h"
#include "server/job_store.h"

namespace attnfleet::server {

// Reads a store beside the thread that it belongs to. Opens readers as they are needed, and keeps them. Thread-safe.
class StoreReaders {
 public:
  // The store must outlive it.
  explicit StoreReaders(JobStore& store) : store_(store) {}

  // With its jobs and runs. NOT_FOUND if there is none (any more), DATA_LOSS if what is there is damaged, UNAVAILABLE
  // if the store cannot be read.
  absl::StatusOr<v1::Benchmark> Read(uint64_t id);

 private:
  // Null if all of them are busy.
  std::unique_ptr<JobStore> TakeIdle();

  JobStore& store_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<JobStore>> idle_;  // guarded by mutex_
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_STORE_READERS_H_
