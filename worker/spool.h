#ifndef ATTNFLEET_WORKER_SPOOL_H_
#define ATTNFLEET_WORKER_SPOOL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "absl/status/statusor.h"
#include "attnfleet/v1/worker.pb.h"

namespace attnfleet::worker {

// Results that no coordinator has acknowledged, one file each in a folder, so that they outlive this process.
//
// Files are replaced in one step but not synced: what the kernel holds survives the process, however it dies. If the
// whole machine goes down, the worker comes back without the run and without its result, and the coordinator runs it
// again; a sync per run would cost more than the rest of the worker.
class Spool {
 public:
  // (benchmark, job, repetition, attempt)
  using Key = std::tuple<uint64_t, uint32_t, uint32_t, uint32_t>;

  static Key KeyOf(const v1::RunKey& run, uint32_t attempt);

  // Creates the folder if needed and loads what is there. A file that cannot be read is set aside under another name,
  // with a warning.
  static absl::StatusOr<std::unique_ptr<Spool>> Open(const std::string& folder);
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  // Keeps a report until it is removed. If the disk refuses it, it is kept in memory alone, with a warning.
  void Add(const v1::RunReport& report);

  // Forgets a report; ignores one that is not here.
  void Remove(const v1::RunKey& run, uint32_t attempt);

  const std::string& folder() const { return folder_; }

  // In order of their keys.
  const std::map<Key, v1::RunReport>& reports() const { return reports_; }

 private:
  Spool(std::string folder, int descriptor);
  static std::string NameOf(const Key& key);
  absl::Status Load();

  const std::string folder_;
  const int descriptor_;  // of the folder
  std::map<Key, v1::RunReport> reports_;
};

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_SPOOL_H_
