#include "worker/link.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/address.h"
#include "proto/status.h"
#include "proto/support/log.h"

namespace attnfleet::worker {
namespace {

constexpr std::chrono::milliseconds kShortestHeartbeat{10};

}  // namespace

Link::Link(EventLoop& loop, LinkOptions options, Callbacks callbacks)
    : loop_(loop),
      options_(std::move(options)),
      callbacks_(std::move(callbacks)),
      servers_(options_.server),
      self_(std::make_shared<Link*>(this)),
      random_(std::random_device{}()) {}

Link::~Link() {
  for (const EventLoop::Id timer : {retry_timer_, welcome_timer_, heartbeat_timer_, connect_timer_}) {
    loop_.CancelTimer(timer);
  }
}

void Link::Connect() {
  if (options_.connect_limit.count() > 0) {
    connect_timer_ = loop_.RunAfter(options_.connect_limit, [this] {
      Refuse(absl::UnavailableError(absl::StrCat("no answer from the server ", options_.server, " within ",
                                                 options_.connect_limit.count(), " ms",
                                                 last_failure_.empty() ? "" : ": ", last_failure_)));
    });
  }
  Open();
}

void Link::Open() {
  retry_timer_ = 0;
  const uint64_t generation = ++generation_;
  // From gRPC's threads to the loop's; there the link may be gone or have another stream by then.
  const auto post = [&loop = loop_, self = std::weak_ptr<Link*>(self_), generation](auto call) {
    loop.Post([self, generation, call] {
      const std::shared_ptr<Link*> link = self.lock();
      if (link != nullptr && (*link)->generation_ == generation) call(**link);
    });
  };
  // A channel of its own for each try, so that gRPC's backoff never adds to this one.
  stream_ = std::make_unique<Stream>(
      MakeChannel(servers_.current(), options_.tls),
      Stream::Callbacks{.readable = [post] { post([](Link& link) { link.TakeCommands(); }); },
                        .ended =
                            [post](const grpc::Status& status, const std::string& leader) {
                              post([status, leader](Link& link) { link.Lost(status, leader); });
                            }});
  v1::WorkerEvent event;
  *event.mutable_hello() = callbacks_.hello();
  stream_->Send(std::move(event));
  const std::chrono::milliseconds limit =
      servers_.several() ? std::min(options_.several_welcome_limit, options_.welcome_limit) : options_.welcome_limit;
  welcome_timer_ = loop_.RunAfter(limit, [this, limit] {
    Lost(grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, absl::StrCat("no welcome within ", limit.count(), " ms")),
         "");
  });
}

void Link::TakeCommands() {
  for (const v1::WorkerCommand& message : stream_->Take()) {
    if (!message.has_batch()) TakeCommand(message);
    for (const v1::WorkerCommand& command : message.batch().commands()) TakeCommand(command);
  }
  if (callbacks_.commands_taken) callbacks_.commands_taken();
}

void Link::TakeCommand(const v1::WorkerCommand& command) {
  if (stream_ == nullptr) return;  // the command before this one has ended it
  if (command.has_welcome()) {
    Welcomed(command.welcome());
  } else {
    callbacks_.command(command);
  }
}

void Link::Welcomed(const v1::Welcome& welcome) {
  loop_.CancelTimer(welcome_timer_);
  loop_.CancelTimer(connect_timer_);
  connected_ = true;
  failures_ = 0;
  next_log_ = {};
  name_taken_since_ = {};
  servers_.Worked();
  LogInfo(absl::StrCat("connected to ", servers_.current()));
  heartbeat_interval_ = std::max(kShortestHeartbeat, std::chrono::milliseconds(welcome.heartbeat_interval_ms()));
  loop_.CancelTimer(heartbeat_timer_);
  heartbeat_timer_ = loop_.RunAfter(heartbeat_interval_, [this] { SendHeartbeat(); });
  callbacks_.welcomed(welcome);
}

void Link::SendHeartbeat() {
  v1::WorkerEvent event;
  event.mutable_heartbeat()->set_draining(callbacks_.draining());
  Send(std::move(event));
  heartbeat_timer_ = loop_.RunAfter(heartbeat_interval_, [this] { SendHeartbeat(); });
}

void Link::Send(v1::WorkerEvent event) {
  if (stream_ == nullptr || over_) return;
  const bool droppable = event.has_progress();
  // Only a coordinator that does not read fills the queue. A new stream starts with the whole state again.
  if (!stream_->Send(std::move(event)) && !droppable) stream_->Cancel();
}

bool Link::DropStream() {
  const bool was_connected = std::exchange(connected_, false);
  if (was_connected && callbacks_.disconnected) callbacks_.disconnected();
  stream_.reset();
  ++generation_;
  loop_.CancelTimer(welcome_timer_);
  loop_.CancelTimer(heartbeat_timer_);
  return was_connected;
}

void Link::Reconnect() {
  if (over_ || stream_ == nullptr) return;
  DropStream();
  retry_timer_ = loop_.RunAfter(std::chrono::milliseconds(0), [this] { Open(); });
}

void Link::Lost(const grpc::Status& status, const std::string& leader) {
  const bool was_connected = DropStream();
  if (closed_) {
    std::exchange(closed_, nullptr)();
    return;
  }
  if (over_) return;
  switch (status.error_code()) {
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::FAILED_PRECONDITION:
      Refuse(absl::Status(FromGrpc(status).code(), absl::StrCat("the server ", servers_.current(),
                                                                " refuses this worker: ", status.error_message())));
      return;
    case grpc::StatusCode::ALREADY_EXISTS: {
      const EventLoop::Clock::time_point now = EventLoop::Clock::now();
      if (name_taken_since_ == EventLoop::Clock::time_point()) name_taken_since_ = now;
      if (now - name_taken_since_ >= options_.name_taken_limit) {
        Refuse(absl::AlreadyExistsError(status.error_message()));
        return;
      }
      Retry(absl::StrCat(servers_.current(), " does not accept this worker yet: ", status.error_message(),
                         ". If that one is its predecessor, it will be noticed as gone: waiting up to ",
                         std::chrono::duration_cast<std::chrono::seconds>(options_.name_taken_limit).count(), " s"),
            servers_.Failed(leader));
      return;
    }
    default:
      break;
  }
  const std::string why = status.ok() ? "the server ended the stream" : status.error_message();
  const std::string text = was_connected ? absl::StrCat("connection to ", servers_.current(), " lost: ", why)
                                         : absl::StrCat("cannot connect to ", servers_.current(), ": ", why);
  Retry(text, servers_.Failed(leader));
}

void Link::Retry(const std::string& why, bool at_once) {
  last_failure_ = why;
  if (at_once) {
    retry_timer_ = loop_.RunAfter(std::chrono::milliseconds(0), [this] { Open(); });
    return;
  }
  const EventLoop::Clock::time_point now = EventLoop::Clock::now();
  if (now >= next_log_) {
    LogWarning(absl::StrCat(why, "; trying again"));
    next_log_ = now + options_.log_interval;
  }
  retry_timer_ = loop_.RunAfter(NextBackoff(), [this] { Open(); });
}

std::chrono::milliseconds Link::NextBackoff() {
  constexpr int kMostDoublings = 20;
  const int doublings = std::min(failures_++, kMostDoublings);
  const auto limit = std::min(options_.longest_backoff, options_.first_backoff * (1L << doublings));
  // Jitter: after the coordinator's restart a fleet must not come back all at once.
  return std::chrono::milliseconds(std::uniform_int_distribution<int64_t>(limit.count() / 2, limit.count())(random_));
}

void Link::Refuse(const absl::Status& status) {
  over_ = true;
  connected_ = false;
  stream_.reset();
  ++generation_;
  for (const EventLoop::Id timer : {retry_timer_, welcome_timer_, heartbeat_timer_, connect_timer_}) {
    loop_.CancelTimer(timer);
  }
  callbacks_.refused(status);
}

void Link::Close(std::function<void()> closed) {
  over_ = true;
  for (const EventLoop::Id timer : {retry_timer_, heartbeat_timer_, connect_timer_}) loop_.CancelTimer(timer);
  if (!connected_) {
    stream_.reset();
    ++generation_;
    loop_.CancelTimer(welcome_timer_);
    closed();
    return;
  }
  closed_ = std::move(closed);
  stream_->HalfClose();
}

}  // namespace attnfleet::worker
