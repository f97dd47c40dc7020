#include "client/leader_channel.h"

#include <utility>

namespace attnfleet::client {

LeaderChannel::LeaderChannel(const std::string& servers, MakeChannelTo make)
    : make_(std::move(make)),
      several_(ServerList(servers).several()),
      servers_(servers),
      address_(servers_.current()),
      channel_(make_(address_)) {}

std::shared_ptr<grpc::Channel> LeaderChannel::channel() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return channel_;
}

bool LeaderChannel::Failed(const std::shared_ptr<grpc::Channel>& tried, const grpc::ClientContext& context) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (tried != channel_) return true;  // another call has moved on already
  const bool followed = servers_.Failed(LeaderNamed(context));
  // With one server the channel stays, and connects again by itself.
  if (servers_.current() == address_) return false;
  address_ = servers_.current();
  channel_ = make_(address_);
  return followed;
}

void LeaderChannel::Worked() {
  const std::lock_guard<std::mutex> lock(mutex_);
  servers_.Worked();
}

}  // namespace attnfleet::client
