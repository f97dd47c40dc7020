#include "server/leadership.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace attnfleet::server {
namespace {

constexpr std::chrono::milliseconds kStatementLimit{2'000};
// A leader's session holds it in shared mode, so that others see at once when the session ends.
constexpr int64_t kLeaderLock = 0x6174746e'00000002;

}  // namespace

bool LeaderWatch::IsGone(const LeaderRow& row, SteadyTime now) {
  if (row.address.empty()) return true;
  if (row.epoch != epoch_ || row.beat != beat_) {
    epoch_ = row.epoch;
    beat_ = row.beat;
    changed_ = now;
  }
  return now - changed_ >= (row.connected ? timing_.lease : timing_.grace);
}

Leadership::Leadership(const std::string& url, std::string address, LeadershipTiming timing)
    : address_(std::move(address)), timing_(timing), postgres_(url, kStatementLimit), watch_(timing) {}

Leadership::~Leadership() { StopBeating(); }

std::string Leadership::leader() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return leader_;
}

absl::StatusOr<LeaderRow> Leadership::Look() {
  // The lock of this look ends with its statement.
  const absl::StatusOr<PostgresRows> rows =
      postgres_.Execute("SELECT epoch, beat, address, NOT pg_try_advisory_xact_lock($1) FROM leadership",
                        PostgresParameters().Add(kLeaderLock));
  if (!rows.ok()) return rows.status();
  if (rows->size() != 1) return absl::DataLossError(postgres_.name() + ": table leadership must have one row");
  return LeaderRow{rows->Int(0, 0), rows->Int(0, 1), std::string(rows->Bytes(0, 2)), rows->Bool(0, 3)};
}

absl::StatusOr<int64_t> Leadership::TryToLead() {
  StopBeating();
  const absl::StatusOr<LeaderRow> row = Look();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    leader_ = row.ok() ? row->address : "";
  }
  if (!row.ok()) {
    watch_.Forget();
    return row.status();
  }
  if (!watch_.IsGone(*row, std::chrono::steady_clock::now())) return 0;
  // One of several that try finds the row as it has seen it.
  const absl::StatusOr<PostgresRows> taken = postgres_.Execute(
      "UPDATE leadership SET epoch = epoch + 1, beat = 0, address = $3 WHERE epoch = $1 AND beat = $2 RETURNING epoch",
      PostgresParameters().Add(row->epoch).Add(row->beat).Add(address_));
  if (!taken.ok()) return taken.status();
  if (taken->size() != 1) return 0;
  epoch_ = taken->Int(0, 0);
  lost_ = false;
  stopping_ = false;
  session_ = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    leader_ = address_;
  }
  thread_ = std::thread([this] { KeepUp(); });
  return epoch_;
}

absl::Status Leadership::HoldSession() {
  if (session_ == postgres_.connections()) return absl::OkStatus();
  absl::Status status =
      postgres_.Execute("SELECT pg_advisory_lock_shared($1)", PostgresParameters().Add(kLeaderLock)).status();
  if (status.ok()) session_ = postgres_.connections();
  return status;
}

absl::Status Leadership::Renew() {
  const std::lock_guard<std::mutex> lock(database_);
  // A write that holds the row is not waited for: heartbeats would wait too.
  const absl::StatusOr<PostgresRows> renewed = postgres_.Execute(
      "UPDATE leadership SET epoch = epoch + 1 "
      "WHERE epoch = (SELECT epoch FROM leadership WHERE epoch = $1 FOR UPDATE NOWAIT) RETURNING epoch",
      PostgresParameters().Add(epoch_));
  if (!renewed.ok()) return renewed.status();
  if (renewed->size() != 1) {
    // Or it is this leader's own, of a renewal without an answer. That cannot be told apart, and is as good as lost.
    lost_ = true;
    return absl::UnavailableError(absl::StrCat(postgres_.name(), ": this coordinator does not lead (any more)"));
  }
  epoch_ = renewed->Int(0, 0);
  return absl::OkStatus();
}

void Leadership::KeepUp() {
  SteadyTime contact = std::chrono::steady_clock::now();
  for (;;) {
    const SteadyTime begun = std::chrono::steady_clock::now();
    {
      const std::lock_guard<std::mutex> lock(database_);
      const absl::StatusOr<PostgresRows> rows = postgres_.Execute(
          "UPDATE leadership SET beat = beat + 1 WHERE epoch = $1 RETURNING beat", PostgresParameters().Add(epoch_));
      const SteadyTime now = std::chrono::steady_clock::now();
      const bool replaced = rows.ok() && rows->size() == 0;
      if (rows.ok() && !replaced && HoldSession().ok()) {
        contact = now;
      } else if (replaced || now - contact >= timing_.step_down) {
        lost_ = true;
      }
    }
    std::unique_lock<std::mutex> lock(mutex_);
    // Without a connection it has little time to be back before another leads.
    const auto pause = contact >= begun ? timing_.beat : timing_.beat / 4;
    if (lost_ || wake_.wait_for(lock, pause, [this] { return stopping_; })) return;
  }
}

void Leadership::StopBeating() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Leadership::Resign() {
  StopBeating();
  // If the database cannot be told, the others find out by the lease.
  postgres_.Execute("UPDATE leadership SET address = '' WHERE epoch = $1", PostgresParameters().Add(epoch_))
      .IgnoreError();
}

}  // namespace attnfleet::server
