#include "worker/stream.h"

#include <utility>

#include "proto/server_list.h"

namespace attnfleet::worker {
namespace {

// The coordinator gives out a run per slot, so these are reached only if it does not read.
constexpr size_t kMaxQueued = 16384;
constexpr size_t kMaxQueuedBeforeProgress = 256;
// After so many unread commands the stream's flow control holds the coordinator back.
constexpr size_t kMaxUnread = 256;

bool SameRun(const v1::RunKey& a, const v1::RunKey& b) {
  return a.benchmark_id() == b.benchmark_id() && a.job_index() == b.job_index() && a.repetition() == b.repetition();
}

}  // namespace

Stream::Stream(std::shared_ptr<grpc::Channel> channel, Callbacks callbacks)
    : channel_(std::move(channel)), stub_(v1::WorkerService::NewStub(channel_)), callbacks_(std::move(callbacks)) {
  const std::lock_guard lock(mutex_);
  stub_->async()->Connect(&context_, this);
  AddHold();  // writes start outside of reactions; released by the read that fails
  StartRead(&incoming_);
  StartCall();
}

Stream::~Stream() {
  context_.TryCancel();
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  // A paused read would never notice the end.
  Take();
  std::unique_lock lock(mutex_);
  done_changed_.wait(lock, [this] { return done_; });
}

bool Stream::Send(v1::WorkerEvent event) {
  const std::lock_guard lock(mutex_);
  if (broken_ || half_closed_) return false;
  if (event.has_progress()) {
    for (size_t i = writing_ ? 1 : 0; i < outbox_.size(); ++i) {
      if (!outbox_[i].has_progress() || !SameRun(outbox_[i].progress().run(), event.progress().run())) continue;
      outbox_[i] = std::move(event);
      return true;
    }
  }
  if (outbox_.size() >= (event.has_progress() ? kMaxQueuedBeforeProgress : kMaxQueued)) return false;
  outbox_.push_back(std::move(event));
  WriteNext();
  return true;
}

void Stream::WriteNext() {
  if (writing_ || broken_ || writes_done_) return;
  if (!outbox_.empty()) {
    writing_ = true;
    StartWrite(&outbox_.front());
  } else if (half_closed_) {
    writes_done_ = true;
    StartWritesDone();
  }
}

std::vector<v1::WorkerCommand> Stream::Take() {
  const std::lock_guard lock(mutex_);
  if (read_paused_) {
    read_paused_ = false;
    StartRead(&incoming_);
  }
  return std::exchange(inbox_, {});
}

void Stream::HalfClose() {
  const std::lock_guard lock(mutex_);
  half_closed_ = true;
  WriteNext();
}

void Stream::OnReadDone(bool ok) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    if (!ok) {
      broken_ = true;
      RemoveHold();
      return;
    }
    first = inbox_.empty();
    inbox_.push_back(std::move(incoming_));
    incoming_.Clear();
    if (inbox_.size() < kMaxUnread || closing_) {
      StartRead(&incoming_);
    } else {
      read_paused_ = true;
    }
  }
  if (first) callbacks_.readable();
}

void Stream::OnWriteDone(bool ok) {
  const std::lock_guard lock(mutex_);
  writing_ = false;
  outbox_.pop_front();
  if (ok) {
    WriteNext();
  } else {
    writes_done_ = true;  // the read will fail too, and end it
  }
}

void Stream::OnDone(const grpc::Status& status) {
  { const std::lock_guard lock(mutex_); }
  callbacks_.ended(status, LeaderNamed(context_));
  const std::lock_guard lock(mutex_);
  done_ = true;
  // Under the mutex: the destructor may go on, and destroy the variable, as soon as it has it.
  done_changed_.notify_all();
}

}  // namespace attnfleet::worker
