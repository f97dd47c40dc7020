#ifndef ATTNFLEET_SERVER_LEADERSHIP_H_
#define ATTNFLEET_SERVER_LEADERSHIP_H_

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/postgres.h"

namespace attnfleet::server {

using SteadyTime = std::chrono::steady_clock::time_point;

struct LeadershipTiming {
  std::chrono::milliseconds beat{1'000};
  // A leader whose heartbeat stands still for so long is taken for gone ...
  std::chrono::milliseconds lease{4'000};
  // ... or for so long, if its connection to the database is gone too: time for it to connect again.
  std::chrono::milliseconds grace{1'500};
  // A leader that cannot reach the database for so long steps down, so that its workers look for another.
  std::chrono::milliseconds step_down{8'000};
};

// What the row of the leader looks like.
struct LeaderRow {
  int64_t epoch = 0;
  int64_t beat = 0;
  std::string address;  // empty: nobody leads
  bool connected = false;
};

// Tells from successive looks at the row whether the leader is gone. Pure; only ever compares times of this process's
// own steady clock, so no clock of another machine matters.
class LeaderWatch {
 public:
  explicit LeaderWatch(const LeadershipTiming& timing) : timing_(timing) {}

  bool IsGone(const LeaderRow& row, SteadyTime now);

  // A look failed: the leader may have been as unable to reach the row as this process. Its silence counts anew, from
  // the next look that succeeds.
  void Forget() { epoch_ = beat_ = -1; }

 private:
  const LeadershipTiming timing_;
  int64_t epoch_ = -1;
  int64_t beat_ = -1;
  SteadyTime changed_{};
};

// Which of the coordinators that share a PostgreSQL database leads. One row of it holds an epoch, which grows with each
// change of the leader, and the leader's heartbeat. Every write of a leader checks the epoch in the same statement
// (PostgresStore), so one that was paused and passed over cannot write any more. A leader takes a new epoch itself
// before it repeats a write whose answer did not come: then the first one cannot happen after the second.
class Leadership {
 public:
  // `address` is where clients reach this coordinator.
  Leadership(const std::string& url, std::string address, LeadershipTiming timing = {});
  ~Leadership();
  Leadership(const Leadership&) = delete;
  Leadership& operator=(const Leadership&) = delete;

  // One look; to be repeated while it says 0 (another leads, or has not been silent for long enough). Else the epoch of
  // this coordinator, which leads from now on, and a thread keeps up the heartbeat until Resign() or a loss.
  absl::StatusOr<int64_t> TryToLead();

  // What to write with, on the thread that calls Renew().
  int64_t epoch() const { return epoch_; }

  // Takes a new epoch for the same leader: nothing of what was begun with the old one happens from now on. An error if
  // something of it is happening just now, if another leads, or if the database does not answer. To be called on one
  // thread, between TryToLead() and Resign().
  absl::Status Renew();

  // Whether what TryToLead() gave is over: another leads, or the database has been away for too long.
  bool lost() const { return lost_; }

  // Lets another lead at once. Nothing may be written with the epoch afterwards.
  void Resign();

  // The leader's address as last seen; empty if there is none. From any thread.
  std::string leader() const;

 private:
  absl::StatusOr<LeaderRow> Look();
  absl::Status HoldSession();
  void KeepUp();
  void StopBeating();

  // Constant after construction.
  const std::string address_;
  const LeadershipTiming timing_;

  std::mutex database_;  // for the thread and Renew()
  Postgres postgres_;    // guarded by database_ while the thread runs
  LeaderWatch watch_;
  std::atomic<int64_t> epoch_ = 0;  // changed under database_ while the thread runs
  int session_ = 0;                 // the connection that holds the lock
  std::atomic<bool> lost_{false};

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::string leader_;     // guarded by mutex_
  bool stopping_ = false;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace attnfleet::server

#endif  // ATTNFLEET_SERVER_LEADERSHIP_H_
