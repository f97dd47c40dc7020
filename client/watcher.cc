#include "client/watcher.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/server.h"
#include "client/text.h"
#include "proto/status.h"

namespace attnfleet::client {
namespace {

// No stream lasts for ever without a deadline; a benchmark that takes longer is watched through several.
constexpr std::chrono::hours kStreamDeadline{1};
constexpr absl::Duration kFirstPause = absl::Milliseconds(50);
constexpr absl::Duration kLongestPause = absl::Seconds(2);

// A message beyond the limit of one side. gRPC says so with the code that also means "slow down".
bool IsTooLarge(const absl::Status& status) {
  return absl::IsResourceExhausted(status) && absl::StrContains(status.message(), "message larger than max");
}

// Whether asking again can help: the server is away, restarting, or the stream's own deadline has passed.
bool IsTransient(const absl::Status& status) {
  if (IsTooLarge(status)) return false;
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kResourceExhausted:
      return true;
    default:
      return false;
  }
}

}  // namespace

Watcher::Watcher(std::shared_ptr<LeaderChannel> leader, v1::WatchRequest request, absl::Duration patience)
    : leader_(std::move(leader)),
      request_(std::move(request)),
      patience_(patience),
      descriptor_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      last_contact_(absl::Now()),
      thread_([this] { Follow(); }) {}

Watcher::~Watcher() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    if (context_ != nullptr) context_->TryCancel();
    stopped_.notify_all();
  }
  thread_.join();
  close(descriptor_);
}

void Watcher::Notify() const { eventfd_write(descriptor_, 1); }

std::vector<v1::WatchResponse> Watcher::Take() {
  eventfd_t count = 0;
  eventfd_read(descriptor_, &count);
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::exchange(updates_, {});
}

std::optional<absl::Status> Watcher::End() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return end_;
}

std::string Watcher::Disconnected() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return disconnected_;
}

absl::Status Watcher::ReadStream() {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kStreamDeadline);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stop_) return absl::CancelledError("stopped");
    context_ = &context;
  }
  const std::shared_ptr<grpc::Channel> channel = leader_->channel();
  const std::unique_ptr<v1::BenchmarkService::Stub> stub = v1::BenchmarkService::NewStub(channel);
  const auto reader = stub->Watch(&context, request_);
  v1::WatchResponse response;
  bool connected = false;
  while (reader->Read(&response)) {
    connected = true;
    const std::lock_guard<std::mutex> lock(mutex_);
    updates_.push_back(std::move(response));
    disconnected_.clear();
    Notify();
  }
  const grpc::Status status = reader->Finish();
  // Until now the server was there, though it may have had nothing to say for an hour.
  if (connected) {
    last_contact_ = absl::Now();
    leader_->Worked();
  }
  followed_ = IsTransient(FromGrpc(status)) && leader_->Failed(channel, context);
  const std::lock_guard<std::mutex> lock(mutex_);
  context_ = nullptr;
  return FromGrpc(status);
}

void Watcher::Follow() {
  std::minstd_rand random(std::random_device{}());
  absl::Duration pause = kFirstPause;
  for (;;) {
    const absl::Time before = last_contact_;
    const absl::Status status = ReadStream();
    const absl::Time now = absl::Now();
    if (last_contact_ != before) pause = kFirstPause;
    std::unique_lock<std::mutex> lock(mutex_);
    if (stop_) return;
    if (status.ok() || !IsTransient(status)) {
      end_ = status;
    } else if (now - last_contact_ > patience_) {
      end_ = absl::UnavailableError(absl::StrCat("no news from the server for ",
                                                 FormatDuration(absl::ToDoubleSeconds(now - last_contact_)), ": ",
                                                 ConnectionProblem(std::string(status.message()))));
    }
    disconnected_ = ConnectionProblem(std::string(status.message()));
    Notify();
    if (end_.has_value()) return;
    if (followed_) continue;
    // Jitter: a restarted server should not meet all its watchers in one instant.
    const absl::Duration jittered = pause * std::uniform_real_distribution<double>(0.5, 1.0)(random);
    stopped_.wait_for(lock, absl::ToChronoMilliseconds(jittered), [this] { return stop_; });
    if (stop_) return;
    pause = std::min(pause * 2, kLongestPause);
  }
}

}  // namespace attnfleet::client
