#include "proto/suggest.h"

#include <gtest/gtest.h>

namespace attnfleet {
namespace {

const std::vector<std::string> kBackends = {"eager", "sdpa", "flash2"};

TEST(Suggest, FindsTheNearestName) {
  EXPECT_EQ(Nearest("flsh", kBackends), "flash2");
  EXPECT_EQ(Nearest("sdp", kBackends), "sdpa");
}

TEST(Suggest, SuggestsNothingForWhatIsFarFromEverything) {
  EXPECT_EQ(Nearest("transformer", kBackends), "");
  EXPECT_EQ(Nearest("eager", {}), "");
}

TEST(Suggest, SaysWhatWasMeantAndWhatThereIs) {
  EXPECT_EQ(UnknownName("backend", "flsh", kBackends),
            "unknown backend \"flsh\"; did you mean \"flash2\"? available: eager, sdpa, flash2");
  EXPECT_EQ(UnknownName("backend", "transformer", kBackends),
            "unknown backend \"transformer\"; available: eager, sdpa, flash2");
  EXPECT_EQ(UnknownName("field", "x", {}), "unknown field \"x\"");
}

}  // namespace
}  // namespace attnfleet
