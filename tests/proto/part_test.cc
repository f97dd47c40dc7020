#include "proto/part.h"

#include <gtest/gtest.h>

namespace attnfleet {
namespace {

TEST(ParsePart, ReadsPercentAndPlainNumbers) {
  EXPECT_DOUBLE_EQ(ParsePart("0.5%").value(), 0.005);
  EXPECT_DOUBLE_EQ(ParsePart("0.005").value(), 0.005);
  EXPECT_EQ(ParsePart("0").value(), 0);
  EXPECT_DOUBLE_EQ(ParsePart("99%").value(), 0.99);
}

TEST(ParsePart, RefusesWhatIsNoPart) {
  for (const char* text : {"", "%", "half", "1", "100%", "-0.1", "-1%", "nan", "inf", "0.5 %%", "5"}) {
    const absl::StatusOr<double> part = ParsePart(text);
    ASSERT_FALSE(part.ok()) << text;
    EXPECT_NE(std::string(part.status().message()).find(text), std::string::npos) << part.status();
  }
}

}  // namespace
}  // namespace attnfleet
