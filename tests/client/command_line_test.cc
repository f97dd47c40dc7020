#include "client/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace attnfleet::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class CommandLineTest : public testing::Test {
 protected:
  std::vector<Flag> Flags() {
    return {{"name", "TEXT", "a name", SetString(name_)}, {"dry-run", "", "a switch\nof two lines", SetBool(dry_run_)}};
  }
  absl::StatusOr<std::vector<std::string>> Parse(const std::vector<std::string>& arguments) {
    return ParseArguments(arguments, Flags());
  }
  std::string Error(const std::vector<std::string>& arguments) {
    return std::string(Parse(arguments).status().message());
  }

  std::string name_;
  bool dry_run_ = false;
};

TEST_F(CommandLineTest, TakesFlagsInEveryForm) {
  EXPECT_THAT(*Parse({"--name=a=b", "x", "--dry-run", "y"}), ElementsAre("x", "y"));
  EXPECT_EQ(name_, "a=b");
  EXPECT_TRUE(dry_run_);
  EXPECT_THAT(*Parse({"--name", "-c", "--nodry-run"}), IsEmpty());
  EXPECT_EQ(name_, "-c");
  EXPECT_FALSE(dry_run_);
  EXPECT_THAT(*Parse({"--dry-run=on", "--", "--name=z", "-"}), ElementsAre("--name=z", "-"));
  EXPECT_TRUE(dry_run_);
}

TEST_F(CommandLineTest, ErrorsNameTheFlagAndWhatWouldBeRight) {
  EXPECT_THAT(Error({"--nmae=x"}), HasSubstr("unknown flag \"--nmae\"; did you mean \"--name\"?"));
  EXPECT_EQ(Error({"--name"}), "--name needs a value: --name=TEXT");
  EXPECT_EQ(Error({"--dry-run=maybe"}), "--dry-run: \"maybe\" is neither on nor off");
  EXPECT_THAT(Error({"-x"}), HasSubstr("unknown flag \"-x\""));
  EXPECT_THAT(Error({"--noname"}), HasSubstr("unknown flag"));
}

TEST_F(CommandLineTest, HelpShowsEveryFlag) {
  EXPECT_EQ(FlagHelp(Flags()), "  --name=TEXT\n      a name\n  --dry-run\n      a switch\n      of two lines\n");
}

TEST(Values, AreReadStrictly) {
  EXPECT_EQ(*ParseInt("-3"), -3);
  EXPECT_FALSE(ParseInt("3.5").ok());
  EXPECT_FALSE(ParseInt("99999999999").ok());
  EXPECT_DOUBLE_EQ(*ParseNumber("1e-5"), 1e-5);
  EXPECT_FALSE(ParseNumber("nan").ok());
  EXPECT_FALSE(ParseNumber("inf").ok());
  EXPECT_DOUBLE_EQ(*ParseSeconds("90"), 90);
  EXPECT_DOUBLE_EQ(*ParseSeconds("1.5s"), 1.5);
  EXPECT_DOUBLE_EQ(*ParseSeconds("1h30m"), 5400);
  for (const char* wrong : {"0", "-1", "soon", "inf", "5 parsecs"}) EXPECT_FALSE(ParseSeconds(wrong).ok()) << wrong;
  EXPECT_THAT(*ParseNames("a, b"), ElementsAre("a", "b"));
  for (const char* wrong : {"", "a,,b", "a,"}) EXPECT_FALSE(ParseNames(wrong).ok()) << wrong;
}

}  // namespace
}  // namespace attnfleet::client
