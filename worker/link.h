#ifndef ATTNFLEET_WORKER_LINK_H_
#define ATTNFLEET_WORKER_LINK_H_

#include <chrono>
#include <functional>
#include <memory>
#include <random>
#include <string>

#include "absl/status/status.h"
#include "attnfleet/v1/worker.pb.h"
#include "proto/credentials.h"
#include "proto/server_list.h"
#include "worker/event_loop.h"
#include "worker/stream.h"

namespace attnfleet::worker {

struct LinkOptions {
  std::string server;  // HOST:PORT or unix:PATH, or several with commas between them, of which one leads
  TlsFiles tls;
  std::chrono::milliseconds first_backoff{100};
  std::chrono::milliseconds longest_backoff{5'000};
  std::chrono::milliseconds welcome_limit{10'000};         // a stream without Welcome for longer is given up ...
  std::chrono::milliseconds several_welcome_limit{5'000};  // ... sooner where another server may be the one that leads
  // How long "a worker of that name is connected" is waited out: the coordinator may still hold the stream of this
  // worker's predecessor, until its lease ends. Once that one is heard again, it says FAILED_PRECONDITION.
  std::chrono::milliseconds name_taken_limit{30'000};
  std::chrono::milliseconds connect_limit{0};      // for the first Welcome; 0 = for ever
  std::chrono::milliseconds log_interval{30'000};  // between complaints about one and the same outage
};

// Keeps the worker connected to its coordinator: hello first, heartbeats, and again with backoff after every loss.
// Lives on the loop's thread and calls back there.
class Link {
 public:
  struct Callbacks {
    // The worker's whole state, asked for at the start of every stream.
    std::function<v1::WorkerHello()> hello;
    // Part of every heartbeat.
    std::function<bool()> draining;
    std::function<void(const v1::Welcome&)> welcomed;
    // The stream of the last Welcome is lost. May be empty.
    std::function<void()> disconnected{};
    // Start, stop or acknowledge; a batch one by one.
    std::function<void(const v1::WorkerCommand&)> command;
    // After the last of the commands that came at once. May be empty.
    std::function<void()> commands_taken{};
    // The coordinator refuses this worker, or could not be reached in time; nothing is tried any more.
    // INVALID_ARGUMENT: what this worker says of itself is wrong; else another worker or version is in the way, or
    // nobody is there.
    std::function<void(const absl::Status&)> refused;
  };

  Link(EventLoop& loop, LinkOptions options, Callbacks callbacks);
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  void Connect();

  // Between a Welcome and the loss of its stream.
  bool connected() const { return connected_; }

  // Sends on the current stream. What is lost with it, or is sent while there is none, the next hello makes good:
  // reports come from the spool, progress does not matter. Nothing is sent after Close().
  void Send(v1::WorkerEvent event);

  // Drops the stream, and what is queued on it, and opens another at once: its hello tells what has changed. Nothing
  // without a stream: there is one to come, or none any more.
  void Reconnect();

  // Sends what is queued, closes the stream and does not connect again. `closed` comes when the coordinator has closed
  // it too, or at once if there is none.
  void Close(std::function<void()> closed);

 private:
  void Open();
  // Whether it was connected.
  bool DropStream();
  // `leader`: whom the server named instead of itself, or "".
  void Lost(const grpc::Status& status, const std::string& leader);
  void Retry(const std::string& why, bool at_once);
  void Refuse(const absl::Status& status);
  void TakeCommands();
  void TakeCommand(const v1::WorkerCommand& command);
  void Welcomed(const v1::Welcome& welcome);
  void SendHeartbeat();
  std::chrono::milliseconds NextBackoff();

  // Constant after construction.
  EventLoop& loop_;
  const LinkOptions options_;
  const Callbacks callbacks_;

  ServerList servers_;
  std::unique_ptr<Stream> stream_;
  // Of the current stream. What an earlier one has posted carries an older number and is dropped.
  uint64_t generation_ = 0;
  // Expires with the link, and with it what streams have posted.
  std::shared_ptr<Link*> self_;
  bool connected_ = false;
  bool over_ = false;  // refused or closed
  std::function<void()> closed_;

  int failures_ = 0;  // since the last Welcome
  std::mt19937 random_;
  std::chrono::milliseconds heartbeat_interval_{0};
  EventLoop::Id retry_timer_ = 0;
  EventLoop::Id welcome_timer_ = 0;
  EventLoop::Id heartbeat_timer_ = 0;
  EventLoop::Id connect_timer_ = 0;
  EventLoop::Clock::time_point next_log_{};
  EventLoop::Clock::time_point name_taken_since_{};
  std::string last_failure_;
};

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_LINK_H_
