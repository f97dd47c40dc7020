#ifndef ATTNFLEET_CLIENT_LEADER_CHANNEL_H_
#define ATTNFLEET_CLIENT_LEADER_CHANNEL_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "proto/address.h"
#include "proto/server_list.h"

namespace attnfleet::client {

// The channel to the coordinator that leads, of one or several ("a:1,b:2") that were named. Thread-safe.
class LeaderChannel {
 public:
  using MakeChannelTo = std::function<std::shared_ptr<grpc::Channel>(const std::string& address)>;

  // `servers` as ParseServerList accepts it.
  explicit LeaderChannel(
      const std::string& servers, MakeChannelTo make = [](const std::string& address) { return MakeChannel(address); });

  std::shared_ptr<grpc::Channel> channel();
  bool several() const { return several_; }

  // To be told when a call on `tried` ended because the server was away or does not lead: the next call goes to
  // another. Returns whether it goes to one that is said to lead, and so needs no pause.
  bool Failed(const std::shared_ptr<grpc::Channel>& tried, const grpc::ClientContext& context);
  void Worked();

 private:
  const MakeChannelTo make_;
  const bool several_;
  std::mutex mutex_;
  ServerList servers_;                      // guarded by mutex_
  std::string address_;                     // of channel_; guarded by mutex_
  std::shared_ptr<grpc::Channel> channel_;  // guarded by mutex_
};

}  // namespace attnfleet::client

#endif  // ATTNFLEET_CLIENT_LEADER_CHANNEL_H_
