// attnfleet-stream-proxy LISTEN SERVER CONTROL: stands between one worker and the server and passes their messages on,
// as the file CONTROL says at that moment:
//
//   (empty)     as they come
//   duplicate   every second one twice, the second time at once or behind the next one
//   reorder     every second one behind the one that follows it, or after kHeldBack if none does
//
// Hello and welcome are left alone: a stream begins with them, and nothing is before them. A message that comes twice
// or late is told on standard error, one JSON object for each.

#include <grpcpp/create_channel.h>
#include <grpcpp/server_builder.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <fstream>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>

#include "attnfleet/v1/worker.grpc.pb.h"
#include "proto/address.h"
#include "proto/support/log.h"
#include "proto/support/stop_signals.h"

namespace attnfleet {
namespace {

constexpr std::chrono::milliseconds kHeldBack{300};

template <typename Message>
std::string NameOf(const Message& message) {
  const auto* field = message.GetReflection()->GetOneofFieldDescriptor(message, message.GetDescriptor()->oneof_decl(0));
  return field != nullptr ? field->name() : "unknown";
}

// One direction of a stream: takes messages in order, and writes them on a thread of its own.
template <typename Message, typename Writer>
class Direction {
 public:
  Direction(const std::string& control, Writer* writer) : control_(control), writer_(writer) {}

  void Push(Message message) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(message));
    changed_.notify_one();
  }

  // Nothing more is pushed.
  void Close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_one();
  }

  // Until it is closed and all is written.
  void Run() {
    Message message;
    bool first = true;
    while (Pop(message)) {
      const std::string asked = first ? "" : Asked();
      first = false;
      if (asked == "duplicate" && Coin()) {
        Tell(message, "comes twice");
        writer_->Write(message);
        if (Coin()) {
          WriteWithHeld(message);
        } else {
          WriteHeld();
          held_ = std::make_unique<Message>(message);
        }
      } else if (asked == "reorder" && held_ == nullptr && Coin()) {
        Tell(message, "comes late");
        held_ = std::make_unique<Message>(message);
      } else {
        WriteWithHeld(message);
      }
    }
  }

 private:
  bool Coin() { return std::bernoulli_distribution(0.5)(random_); }

  std::string Asked() const {
    std::string word;
    std::ifstream(control_) >> word;
    return word;
  }

  static void Tell(const Message& message, const char* what) { LogInfo(NameOf(message), {{"fault", what}}); }

  void WriteHeld() {
    if (held_ != nullptr) writer_->Write(*std::exchange(held_, nullptr));
  }

  void WriteWithHeld(const Message& message) {
    writer_->Write(message);
    WriteHeld();
  }

  // The next message; false at the end. What is held back is not held for ever meanwhile.
  bool Pop(Message& message) {
    std::unique_lock lock(mutex_);
    const auto ready = [this] { return closed_ || !queue_.empty(); };
    if (held_ != nullptr && !changed_.wait_for(lock, kHeldBack, ready)) WriteHeld();
    changed_.wait(lock, ready);
    if (queue_.empty()) {
      WriteHeld();
      return false;
    }
    message = std::move(queue_.front());
    queue_.pop_front();
    return true;
  }

  // Constant after construction.
  const std::string control_;
  Writer* const writer_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Message> queue_;  // guarded by mutex_
  bool closed_ = false;        // guarded by mutex_

  // Of the thread in Run.
  std::unique_ptr<Message> held_;
  std::mt19937 random_{std::random_device{}()};
};

class Proxy final : public v1::WorkerService::Service {
 public:
  Proxy(std::string server, std::string control) : server_(std::move(server)), control_(std::move(control)) {}

 private:
  using FromWorker = grpc::ServerReaderWriter<v1::WorkerCommand, v1::WorkerEvent>;
  using ToServer = grpc::ClientReaderWriter<v1::WorkerEvent, v1::WorkerCommand>;

  grpc::Status Connect(grpc::ServerContext* context, FromWorker* worker) override {
    // A channel for each stream, as a worker has it.
    const auto stub = v1::WorkerService::NewStub(MakeChannel(server_));
    grpc::ClientContext onward;
    const std::unique_ptr<ToServer> server = stub->Connect(&onward);

    Direction<v1::WorkerEvent, ToServer> events(control_, server.get());
    std::atomic<bool> worker_ended = false;
    std::thread read_events([&] {
      for (v1::WorkerEvent event; worker->Read(&event);) events.Push(std::move(event));
      worker_ended = true;
      events.Close();
    });
    std::thread write_events([&] {
      events.Run();
      server->WritesDone();
      if (context->IsCancelled()) onward.TryCancel();  // the worker is gone, and waits for no answer
    });
    Direction<v1::WorkerCommand, FromWorker> commands(control_, worker);
    std::thread write_commands([&] { commands.Run(); });
    for (v1::WorkerCommand command; server->Read(&command);) commands.Push(std::move(command));
    commands.Close();
    write_commands.join();
    const grpc::Status status = server->Finish();
    // Only this wakes the read that waits for the worker, which connects again.
    if (!worker_ended) context->TryCancel();
    read_events.join();
    write_events.join();
    return status;
  }

  const std::string server_;
  const std::string control_;
};

int Main(const std::string& listen, const std::string& server, const std::string& control) {
  InitLog("attnfleet-stream-proxy", Severity::kInfo, LogFormat::kJson);
  StopSignals signals;
  Proxy proxy(server, control);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(listen, grpc::InsecureServerCredentials());
  builder.RegisterService(&proxy);
  const std::unique_ptr<grpc::Server> running = builder.BuildAndStart();
  if (running == nullptr) return 1;
  std::printf("ready\n");
  std::fflush(stdout);
  while (signals.Wait(std::chrono::seconds(3600)) == 0) {
  }
  running->Shutdown(std::chrono::system_clock::now());
  return 0;
}

}  // namespace
}  // namespace attnfleet

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("attnfleet-stream-proxy LISTEN SERVER CONTROL\n", stderr);
    return 2;
  }
  return attnfleet::Main(argv[1], argv[2], argv[3]);
}
