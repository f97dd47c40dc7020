#ifndef ATTNFLEET_CLIENT_WATCHER_H_
#define ATTNFLEET_CLIENT_WATCHER_H_

#include <grpcpp/client_context.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attnfleet/v1/service.grpc.pb.h"
#include "client/leader_channel.h"

namespace attnfleet::client {

// Follows one benchmark in a thread of its own. When the server goes away it connects again with back-off, and the
// server then sends the whole benchmark first, so nothing is missed.
class Watcher {
 public:
  // Gives up after `patience` without contact.
  Watcher(std::shared_ptr<LeaderChannel> leader, v1::WatchRequest request, absl::Duration patience);
  ~Watcher();
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  // Readable when Take() or End() has something new. For poll().
  int descriptor() const { return descriptor_; }

  // What has come since the last call, in order.
  std::vector<v1::WatchResponse> Take();

  // Set once nothing more will come: OK when the benchmark has ended, else why it cannot be followed.
  std::optional<absl::Status> End();

  // Why there is no contact at present; "" while there is.
  std::string Disconnected();

 private:
  void Follow();
  absl::Status ReadStream();
  void Notify() const;

  const std::shared_ptr<LeaderChannel> leader_;
  const v1::WatchRequest request_;
  const absl::Duration patience_;
  const int descriptor_;

  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stop_ = false;                       // guarded by mutex_
  grpc::ClientContext* context_ = nullptr;  // of the open stream; guarded by mutex_
  std::vector<v1::WatchResponse> updates_;  // guarded by mutex_
  std::optional<absl::Status> end_;         // guarded by mutex_
  std::string disconnected_;                // guarded by mutex_
  absl::Time last_contact_;                 // of the thread alone
  bool followed_ = false;  // the next stream goes to a server that is said to lead; of the thread alone

  std::thread thread_;
};

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_WATCHER_H_
