#ifndef ATTNFLEET_WORKER_STREAM_H_
#define ATTNFLEET_WORKER_STREAM_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "attnfleet/v1/worker.grpc.pb.h"
#include "attnfleet/v1/worker.pb.h"

namespace attnfleet::worker {

// One call of WorkerService.Connect on a channel of its own: bounded queues between the worker's thread and gRPC's.
// Knows nothing of what the messages mean.
class Stream final : private grpc::ClientBidiReactor<v1::WorkerEvent, v1::WorkerCommand> {
 public:
  // Both come on gRPC's threads and must not block. `readable`: Take() has something. `ended`: comes once and last;
  // `leader` is the coordinator that the peer named instead of itself, or "".
  struct Callbacks {
    std::function<void()> readable;
    std::function<void(const grpc::Status&, const std::string& leader)> ended;
  };

  Stream(std::shared_ptr<grpc::Channel> channel, Callbacks callbacks);
  // Cancels the call if it has not ended, and waits for its end.
  ~Stream() override;

  // Appends a message. False if the queue is full, or the call at its end: the message is lost. An unsent progress
  // message of the same run is replaced. Progress gives way first: it is refused by a queue that takes the rest.
  bool Send(v1::WorkerEvent event);

  // What has come since the last call, in order.
  std::vector<v1::WorkerCommand> Take();

  // Sends what is queued, and then nothing more: the coordinator ends the call.
  void HalfClose();
  void Cancel() { context_.TryCancel(); }

 private:
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;
  void WriteNext();  // mutex_ held

  // Constant after construction.
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::WorkerService::Stub> stub_;
  const Callbacks callbacks_;
  grpc::ClientContext context_;

  std::mutex mutex_;
  std::condition_variable done_changed_;

  // Guarded by mutex_.
  std::deque<v1::WorkerEvent> outbox_;  // the first is being written if writing_
  bool writing_ = false;
  bool half_closed_ = false;  // asked for
  bool writes_done_ = false;  // done, or pointless
  std::vector<v1::WorkerCommand> inbox_;
  v1::WorkerCommand incoming_;  // gRPC's while a read is under way
  bool read_paused_ = false;
  bool closing_ = false;  // nobody takes from the inbox any more
  bool broken_ = false;   // no operation can succeed any more
  bool done_ = false;
};

}  // namespace attnfleet::worker

#endif  // ATTNFLEET_WORKER_STREAM_H_
