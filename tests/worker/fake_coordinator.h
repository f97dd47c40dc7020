#ifndef ATTNFLEET_TESTS_WORKER_FAKE_COORDINATOR_H_
#define ATTNFLEET_TESTS_WORKER_FAKE_COORDINATOR_H_

#include <grpcpp/server.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "attnfleet/v1/worker.grpc.pb.h"

namespace attnfleet::worker {

// A coordinator that does what a test tells it and nothing else. Thread-safe.
class FakeCoordinator {
 public:
  // One worker's stream.
  class Session final : public grpc::ServerBidiReactor<v1::WorkerEvent, v1::WorkerCommand> {
   public:
    explicit Session(FakeCoordinator* owner);
    void Start(bool reading);

    void Send(v1::WorkerCommand command);
    void Welcome(int heartbeat_interval_ms = 60'000);
    void Acknowledge(const v1::RunReport& report);
    void End(grpc::Status status);

    std::vector<v1::WorkerEvent> events();
    // Those of one kind.
    std::vector<v1::WorkerEvent> events(v1::WorkerEvent::EventCase kind);
    // The worker has closed its side, or is gone.
    bool half_closed();
    bool done();

   private:
    void OnReadDone(bool ok) override;
    void OnWriteDone(bool ok) override;
    void OnDone() override;

    FakeCoordinator* const owner_;
    std::mutex mutex_;
    std::vector<v1::WorkerEvent> events_;
    v1::WorkerEvent incoming_;
    std::deque<v1::WorkerCommand> outbox_;
    bool writing_ = false;
    bool half_closed_ = false;
    bool finished_ = false;
    bool done_ = false;
  };

  // Listens on unix:PATH. `on_stream` comes on a thread of gRPC for every stream whose hello has been read, as a
  // coordinator knows nobody before; if it is not `reading`, for every stream.
  explicit FakeCoordinator(const std::string& path, std::function<void(Session&)> on_stream = nullptr,
                           bool reading = true);
  ~FakeCoordinator();
  FakeCoordinator(const FakeCoordinator&) = delete;
  FakeCoordinator& operator=(const FakeCoordinator&) = delete;

  // How many streams `on_stream` came for, and each of them. Sessions live as long as the coordinator.
  size_t sessions();
  Session& session(size_t index);
  Session& last() { return session(sessions() - 1); }

 private:
  class Service final : public v1::WorkerService::CallbackService {
   public:
    explicit Service(FakeCoordinator* owner) : owner_(owner) {}
    grpc::ServerBidiReactor<v1::WorkerEvent, v1::WorkerCommand>* Connect(grpc::CallbackServerContext*) override;

   private:
    FakeCoordinator* const owner_;
  };

  void Greet(Session* session);

  const std::function<void(Session&)> on_stream_;
  const bool reading_;
  Service service_;
  std::mutex mutex_;
  std::condition_variable session_done_;
  std::vector<std::unique_ptr<Session>> streams_;  // guarded by mutex_
  std::vector<Session*> sessions_;                 // guarded by mutex_
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_TESTS_WORKER_FAKE_COORDINATOR_H_
