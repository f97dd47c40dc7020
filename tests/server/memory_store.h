#ifndef ATTNFLEET_TESTS_SERVER_MEMORY_STORE_H_
#define ATTNFLEET_TESTS_SERVER_MEMORY_STORE_H_

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "faulty_store.h"
#include "proto/spec.h"
#include "server/job_store.h"

namespace attnfleet::server {

// A store without a disk, for tests of what stands on one. Unlike others it may be looked into from any thread.
class MemoryStore : public JobStore {
 public:
  std::string name() const override { return "store in memory"; }

  absl::Status Save(const StoreChanges& changes) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return SaveLocked(changes);
  }

  absl::Status Delete(const std::vector<uint64_t>& ids) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const uint64_t id : ids) {
      benchmarks_.erase(id);
      runs_.erase(runs_.lower_bound({id, 0, 0}), runs_.lower_bound({id + 1, 0, 0}));
    }
    return absl::OkStatus();
  }

  absl::Status Fill(const Source& next) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!benchmarks_.empty() || !settings_.empty()) return absl::FailedPreconditionError(name() + " is not empty");
    absl::Status status = FillLocked(next);
    if (!status.ok()) {
      benchmarks_.clear();
      runs_.clear();
      settings_.clear();
    }
    return status;
  }

  absl::StatusOr<std::unique_ptr<JobStore>> OpenReader() override { return std::make_unique<FaultyStore>(*this); }

  absl::Status Read(const Selection& selection, RowReader& reader) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [name, value] : settings_) {
      if (absl::Status status = reader.TakeSetting(name, value); !status.ok()) return status;
    }
    if (!selection.benchmarks) return absl::OkStatus();
    for (const auto& [id, stored] : benchmarks_) {
      if (selection.id != 0 && selection.id != id) continue;
      const std::string message = stored.benchmark.SerializeAsString();
      const BenchmarkRow row{static_cast<int64_t>(id), stored.benchmark.state(), stored.request_id, message};
      if (absl::Status status = reader.TakeBenchmark(row); !status.ok()) return status;
    }
    for (const auto& [key, run] : runs_) {
      const auto& [id, job, repetition] = key;
      if (selection.id != 0 && selection.id != id) continue;
      if (!selection.runs_of_ended && HasEnded(benchmarks_.at(id).benchmark)) continue;
      const std::string message = run.SerializeAsString();
      if (absl::Status status = reader.TakeRun({static_cast<int64_t>(id), job, repetition, run.state(), message});
          !status.ok()) {
        return status;
      }
    }
    return absl::OkStatus();
  }

  // QUEUED if the run has no row.
  v1::RunState StateOf(const v1::RunKey& key) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = runs_.find({key.benchmark_id(), key.job_index(), key.repetition()});
    return found == runs_.end() ? v1::RUN_STATE_QUEUED : found->second.state();
  }

 private:
  absl::Status SaveLocked(const StoreChanges& changes) {
    for (const StoreChanges::ChangedBenchmark& changed : changes.benchmarks) {
      for (const auto& [id, stored] : benchmarks_) {
        if (!changed.request_id.empty() && stored.request_id == changed.request_id && id != changed.benchmark->id()) {
          return absl::AlreadyExistsError(name() + ": request_id");
        }
      }
    }
    for (const StoreChanges::ChangedBenchmark& changed : changes.benchmarks) {
      benchmarks_[changed.benchmark->id()] = {RowMessage(*changed.benchmark), changed.request_id, {}};
    }
    for (const v1::Run* run : changes.runs) {
      runs_[{run->key().benchmark_id(), run->key().job_index(), run->key().repetition()}] = *run;
    }
    for (const StoreChanges::ChangedSetting& changed : changes.settings) {
      settings_[changed.name] = changed.value;
      if (changed.value.empty()) settings_.erase(changed.name);
    }
    return absl::OkStatus();
  }

  absl::Status FillLocked(const Source& next) {
    for (;;) {
      StoreChanges changes;
      const absl::StatusOr<bool> more = next(changes);
      if (!more.ok() || !*more) return more.status();
      if (absl::Status status = SaveLocked(changes); !status.ok()) return status;
    }
  }

  std::mutex mutex_;
  std::map<uint64_t, StoredBenchmark> benchmarks_;  // without their runs
  std::map<std::tuple<uint64_t, uint32_t, uint32_t>, v1::Run> runs_;
  std::map<std::string, std::string> settings_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_TESTS_SERVER_MEMORY_STORE_H_
