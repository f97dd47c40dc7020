#include "worker/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>

#include "absl/status/status.h"

namespace attnfleet::worker {
namespace {

absl::Status Add(int epoll, int descriptor, EventLoop::Id id) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = id;
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, "epoll_ctl");
}

}  // namespace

absl::StatusOr<std::unique_ptr<EventLoop>> EventLoop::Create() {
  const int epoll = epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) return absl::ErrnoToStatus(errno, "epoll_create1");
  const int wakeup = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wakeup < 0) {
    const int error = errno;
    close(epoll);
    return absl::ErrnoToStatus(error, "eventfd");
  }
  std::unique_ptr<EventLoop> loop(new EventLoop(epoll, wakeup));
  if (absl::Status status = Add(epoll, wakeup, 0); !status.ok()) return status;
  return loop;
}

EventLoop::EventLoop(int epoll, int wakeup) : epoll_(epoll), wakeup_(wakeup) {}

EventLoop::~EventLoop() {
  close(wakeup_);
  close(epoll_);
}

absl::StatusOr<EventLoop::Id> EventLoop::Watch(int descriptor, Callback readable) {
  const Id id = next_id_++;
  if (absl::Status status = Add(epoll_, descriptor, id); !status.ok()) return status;
  watches_.emplace(id, std::make_shared<Callback>(std::move(readable)));
  return id;
}

void EventLoop::Unwatch(Id id, int descriptor) {
  if (watches_.erase(id) > 0) epoll_ctl(epoll_, EPOLL_CTL_DEL, descriptor, nullptr);
}

EventLoop::Id EventLoop::RunAt(Clock::time_point time, Callback callback) {
  const Id id = next_id_++;
  timers_.emplace(std::make_pair(time, id), std::move(callback));
  timer_times_.emplace(id, time);
  return id;
}

void EventLoop::CancelTimer(Id id) {
  const auto found = timer_times_.find(id);
  if (found == timer_times_.end()) return;
  timers_.erase({found->second, id});
  timer_times_.erase(found);
}

void EventLoop::Post(Callback callback) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = posted_.empty();
    posted_.push_back(std::move(callback));
  }
  // Only the first needs to wake the loop: it takes all that is there. An eventfd's write of 1 cannot fail here.
  if (first) eventfd_write(wakeup_, 1);
}

void EventLoop::RunPosted() {
  eventfd_t ignored = 0;
  eventfd_read(wakeup_, &ignored);
  std::vector<Callback> posted;
  {
    const std::lock_guard lock(mutex_);
    posted.swap(posted_);
  }
  for (const Callback& callback : posted) callback();
}

void EventLoop::RunTimers() {
  const Clock::time_point now = Clock::now();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    const auto timer = timers_.extract(timers_.begin());
    timer_times_.erase(timer.key().second);
    timer.mapped()();
  }
}

int EventLoop::TimeoutMilliseconds() const {
  if (timers_.empty()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(timers_.begin()->first.first - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, INT_MAX));
}

void EventLoop::Run() {
  running_ = true;
  std::array<epoll_event, 64> events;
  while (running_) {
    const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), TimeoutMilliseconds());
    for (int i = 0; i < count; ++i) {
      const Id id = events[static_cast<size_t>(i)].data.u64;
      if (id == 0) {
        RunPosted();
        continue;
      }
      // An earlier event of this round may have removed the watch: ids, unlike descriptors, are never used again.
      const auto found = watches_.find(id);
      if (found == watches_.end()) continue;
      const std::shared_ptr<Callback> callback = found->second;
      (*callback)();
    }
    RunTimers();
  }
}

}  // namespace attnfleet::worker
