#ifndef ATTNFLEET_SERVER_JOB_STORE_H_
#define ATTNFLEET_SERVER_JOB_STORE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attnfleet/v1/benchmark.pb.h"

namespace attnfleet::server {

// What changed in one batch of events, to be stored together or not at all. The pointers need to live only for the
// call. A benchmark, run or setting is given once at most.
struct StoreChanges {
  struct ChangedBenchmark {
    const v1::Benchmark* benchmark;  // without its jobs: they follow from the spec (ExpandJobs), their runs are rows
    std::string request_id;          // of the submit; may be empty
  };
  struct ChangedSetting {
    std::string name;
    std::string value;  // any bytes; empty: the setting is removed
  };
  std::vector<ChangedBenchmark> benchmarks;
  std::vector<const v1::Run*> runs;  // a run without a row has never been assigned
  std::vector<ChangedSetting> settings;
};

// A benchmark as the store has it: without jobs, which follow from its spec.
struct StoredBenchmark {
  v1::Benchmark benchmark;  // runs_ended counts `runs`
  std::string request_id;
  std::vector<v1::Run> runs;  // those that have a row, by job and repetition
};

// With the jobs, and the runs in them. DATA_LOSS names a run for which the spec has no place.
absl::StatusOr<v1::Benchmark> WithJobs(StoredBenchmark stored);

// The rows as they are, for those who want to see damage too. The views live for the call.
struct BenchmarkRow {
  int64_t id = 0;
  int64_t state = 0;
  std::string_view request_id;
  std::string_view message;
};
struct RunRow {
  int64_t benchmark_id = 0;
  int64_t job_index = 0;
  int64_t repetition = 0;
  int64_t state = 0;
  std::string_view message;
};
class RowReader {
 public:
  virtual ~RowReader() = default;
  // An error ends the reading and is its result.
  virtual absl::Status TakeSetting(std::string_view name, std::string_view value) = 0;
  virtual absl::Status TakeBenchmark(const BenchmarkRow& row) = 0;
  virtual absl::Status TakeRun(const RunRow& row) = 0;
};

// Where benchmarks, and the settings that administrators make at run time, outlive the coordinator. Used by one thread.
// Errors name the store. UNAVAILABLE and RESOURCE_EXHAUSTED may pass; UNAVAILABLE is also the answer of a store that
// another coordinator leads by now.
class JobStore {
 public:
  virtual ~JobStore() = default;

  // "store /var/lib/attnfleet.db": how messages call it. Holds no password.
  virtual std::string name() const = 0;

  // On OK the changes survive a crash of the machine. On an error none of them was made, or all (the connection broke
  // while they were committed), and the call may be repeated.
  virtual absl::Status Save(const StoreChanges& changes) = 0;

  // An error if another coordinator leads by now, or if that cannot be found out: what this one knows may be old then.
  virtual absl::Status ConfirmLead() { return absl::OkStatus(); }

  // Removes the benchmarks with their runs, in one transaction. Ids that are unknown are no error.
  virtual absl::Status Delete(const std::vector<uint64_t>& ids) = 0;

  // For restoring: takes changes from `next` until it returns false, all in one transaction. FAILED_PRECONDITION if the
  // store holds a benchmark or a setting.
  using Source = std::function<absl::StatusOr<bool>(StoreChanges& changes)>;
  virtual absl::Status Fill(const Source& next) = 0;

  // Another view of it, for reading on another thread while this one is used. May be called on any thread; the view
  // must not outlive this one.
  virtual absl::StatusOr<std::unique_ptr<JobStore>> OpenReader() = 0;

  // What to read beside the settings.
  struct Selection {
    bool benchmarks = true;
    uint64_t id = 0;  // only this benchmark; 0: every one
    bool runs_of_ended = true;
  };
  // One consistent picture: the settings, then the benchmarks by id, then the runs by key.
  virtual absl::Status Read(const Selection& selection, RowReader& reader) = 0;

  // Every benchmark, oldest first; `runs_of_ended` false: those that have ended without their runs. DATA_LOSS names the
  // row that is damaged; an error of `take` ends it and gets the store's name.
  using Take = std::function<absl::Status(StoredBenchmark stored)>;
  absl::Status Load(const Take& take, bool runs_of_ended = true);
  // One benchmark with its runs. NOT_FOUND if there is none.
  absl::StatusOr<StoredBenchmark> LoadBenchmark(uint64_t id);
  absl::StatusOr<std::map<std::string, std::string>> LoadSettings();
};

// What a row of a benchmark holds: it without its jobs and what is derived from them.
v1::Benchmark RowMessage(const v1::Benchmark& benchmark);

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_JOB_STORE_H_
