#include "server/store_readers.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace attnfleet::server {
namespace {

// For whoever asked. What keeps the server from its own store may pass, and is nothing that they may not do.
absl::Status CannotBeRead(uint64_t id, const absl::Status& why) {
  return absl::UnavailableError(
      absl::StrCat("benchmark ", id, " cannot be read at present: ", std::string(why.message())));
}

}  // namespace

std::unique_ptr<JobStore> StoreReaders::TakeIdle() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (idle_.empty()) return nullptr;
  std::unique_ptr<JobStore> reader = std::move(idle_.back());
  idle_.pop_back();
  return reader;
}

absl::StatusOr<v1::Benchmark> StoreReaders::Read(uint64_t id) {
  for (;;) {
    std::unique_ptr<JobStore> reader = TakeIdle();
    const bool used = reader != nullptr;
    if (!used) {
      absl::StatusOr<std::unique_ptr<JobStore>> opened = store_.OpenReader();
      if (!opened.ok()) return CannotBeRead(id, opened.status());
      reader = *std::move(opened);
    }
    absl::StatusOr<StoredBenchmark> stored = reader->LoadBenchmark(id);
    if (!stored.ok() && !absl::IsNotFound(stored.status())) {
      if (used) continue;  // its connection may have broken since
      return absl::IsDataLoss(stored.status()) ? stored.status() : CannotBeRead(id, stored.status());
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      idle_.push_back(std::move(reader));
    }
    if (!stored.ok()) return absl::NotFoundError(absl::StrCat("there is no benchmark ", id));
    return WithJobs(*std::move(stored));
  }
}

}  // namespace attnfleet::server
