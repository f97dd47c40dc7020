#include "proto/server_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace attnfleet {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ServerListTest, AddressesAreCheckedOneByOne) {
  EXPECT_THAT(*ParseServerList("--server", "a:1, unix:/run/s,b:2"), ElementsAre("a:1", "unix:/run/s", "b:2"));
  EXPECT_THAT(std::string(ParseServerList("--server", "a:1,b").status().message()), HasSubstr("--server: \"b\""));
  EXPECT_FALSE(ParseServerList("--server", "a:1,").ok());
}

TEST(ServerListTest, EveryAddressIsTriedInTurn) {
  ServerList list("a:1,b:2,c:3");
  std::vector<std::string> tried;
  for (int i = 0; i < 4; ++i) {
    tried.push_back(list.current());
    EXPECT_FALSE(list.Failed(""));
  }
  EXPECT_THAT(tried, ElementsAre("a:1", "b:2", "c:3", "a:1"));
}

TEST(ServerListTest, LeaderIsFollowedOnceThenTheOthersAreTried) {
  ServerList list("a:1,b:2,c:3");
  EXPECT_TRUE(list.Failed("c:3"));
  EXPECT_EQ(list.current(), "c:3");
  EXPECT_FALSE(list.Failed("")) << "it does not answer";
  EXPECT_EQ(list.current(), "b:2") << "not the one again that named it";
  EXPECT_TRUE(list.Failed("c:3"));
  EXPECT_FALSE(list.Failed("b:2")) << "two that name each other";
  EXPECT_EQ(list.current(), "c:3");
}

TEST(ServerListTest, LeaderThatIsNotListedIsFollowedToo) {
  ServerList list("a:1");
  EXPECT_FALSE(list.several());
  EXPECT_TRUE(list.Failed("b:2"));
  EXPECT_EQ(list.current(), "b:2");
  list.Worked();
  EXPECT_EQ(list.current(), "b:2") << "the one that works is kept";
  EXPECT_FALSE(list.Failed(""));
  EXPECT_EQ(list.current(), "a:1");
}

}  // namespace
}  // namespace attnfleet
