#include "client/leader_channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace attnfleet::client {
namespace {

using testing::ElementsAre;

class LeaderChannelTest : public testing::Test {
 protected:
  LeaderChannel::MakeChannelTo Make() {
    return [this](const std::string& address) {
      made_.push_back(address);
      return MakeChannel(address);
    };
  }

  std::vector<std::string> made_;
  const grpc::ClientContext named_nobody_;
};

TEST_F(LeaderChannelTest, NextServerIsTriedAfterAFailure) {
  LeaderChannel leader("127.0.0.1:1,127.0.0.1:2", Make());
  EXPECT_TRUE(leader.several());
  const auto first = leader.channel();
  EXPECT_FALSE(leader.Failed(first, named_nobody_));
  EXPECT_NE(leader.channel(), first);
  EXPECT_TRUE(leader.Failed(first, named_nobody_)) << "another call has seen that before";
  EXPECT_THAT(made_, ElementsAre("127.0.0.1:1", "127.0.0.1:2"));
}

TEST_F(LeaderChannelTest, ChannelToTheOnlyServerIsKept) {
  LeaderChannel leader("127.0.0.1:1", Make());
  const auto only = leader.channel();
  EXPECT_FALSE(leader.Failed(only, named_nobody_));
  EXPECT_EQ(leader.channel(), only);
  EXPECT_THAT(made_, ElementsAre("127.0.0.1:1"));
}

}  // namespace
}  // namespace attnfleet::client
