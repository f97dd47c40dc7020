#ifndef ATTNFLEET_TESTS_SERVER_FAULTY_STORE_H_
#define ATTNFLEET_TESTS_SERVER_FAULTY_STORE_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/job_store.h"

namespace attnfleet::server {

// Another store, whose writes fail on request.
class FaultyStore : public JobStore {
 public:
  explicit FaultyStore(JobStore& store) : store_(store) {}

  enum class Fault {
    kNone,
    kFull,        // nothing is written
    kLostAnswer,  // it is written, but the writer is told that it failed
  };
  std::atomic<Fault> fault{Fault::kNone};  // of every write from now on
  std::atomic<int> failed{0};              // writes that did
  std::atomic<bool> leads{true};           // no other coordinator does
  std::function<void()> read_beside;       // called by readers before they read; set it before there is one
  absl::Status open_error;                 // of opening a reader; set it while nobody does
  absl::Status read_error;                 // of what readers read; set it before there is one

  std::string name() const override { return store_.name(); }
  absl::Status Save(const StoreChanges& changes) override {
    return Write([&] { return store_.Save(changes); });
  }
  absl::Status ConfirmLead() override {
    if (fault == Fault::kLostAnswer) return absl::UnavailableError(name() + ": the connection broke");
    return leads ? absl::OkStatus() : absl::UnavailableError(name() + ": this coordinator does not lead (any more)");
  }
  absl::Status Delete(const std::vector<uint64_t>& ids) override {
    return Write([&] { return store_.Delete(ids); });
  }
  absl::Status Fill(const Source& next) override {
    return Write([&] { return store_.Fill(next); });
  }
  absl::StatusOr<std::unique_ptr<JobStore>> OpenReader() override {
    if (!open_error.ok()) return open_error;
    auto reader = std::make_unique<FaultyStore>(store_);
    reader->before_read_ = read_beside;
    reader->own_read_error_ = read_error;
    return reader;
  }
  absl::Status Read(const Selection& selection, RowReader& reader) override {
    if (before_read_) before_read_();
    if (!own_read_error_.ok()) return own_read_error_;
    return store_.Read(selection, reader);
  }

 private:
  template <typename Work>
  absl::Status Write(Work work) {
    const Fault now = fault;
    if (now == Fault::kNone) return work();
    ++failed;
    if (now == Fault::kFull) return absl::ResourceExhaustedError(name() + ": No space left on device");
    if (absl::Status status = work(); !status.ok()) return status;
    return absl::UnavailableError(name() + ": the connection broke");
  }

  JobStore& store_;
  std::function<void()> before_read_;
  absl::Status own_read_error_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_TESTS_SERVER_FAULTY_STORE_H_
