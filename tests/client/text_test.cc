#include "client/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace attnfleet::client {
namespace {

using testing::ElementsAre;

TEST(Text, WidthCountsCharactersAndNotBytes) {
  EXPECT_EQ(DisplayWidth("±0.5"), 4);
  EXPECT_EQ(PadLeft("±1", 4), "  ±1");
  EXPECT_EQ(PadRight("±1", 4), "±1  ");
  EXPECT_EQ(PadLeft("long", 2), "long");
}

TEST(Text, TruncateKeepsWhatFits) {
  EXPECT_EQ(Truncate("abcdef", 6), "abcdef");
  EXPECT_EQ(Truncate("abcdef", 4), "abc…");
  EXPECT_EQ(Truncate("±±±±", 3), "±±…");
  EXPECT_EQ(Truncate("abcdef", 0), "abcdef");
}

TEST(Text, ControlCharactersAreMadeHarmless) { EXPECT_EQ(Printable("a\033[31mb\nc\x7F"), "a?[31mb?c?"); }

TEST(Text, WrapBreaksAtSpacesAndLetsLongWordsBe) {
  EXPECT_THAT(Wrap("one two three", 7), ElementsAre("one two", "three"));
  EXPECT_THAT(Wrap("a muchtoolongword b", 4), ElementsAre("a", "muchtoolongword", "b"));
  EXPECT_THAT(Wrap("one two three", 0), ElementsAre("one two three"));
  EXPECT_THAT(Wrap("", 10), ElementsAre(""));
}

TEST(Text, DurationsReadWell) {
  EXPECT_EQ(FormatDuration(0.42), "0.4 s");
  EXPECT_EQ(FormatDuration(9.97), "10 s");
  EXPECT_EQ(FormatDuration(59.6), "1 min 0 s");
  EXPECT_EQ(FormatDuration(200), "3 min 20 s");
  EXPECT_EQ(FormatDuration(7500), "2 h 5 min");
  EXPECT_EQ(FormatDuration(1e300), "years");
  EXPECT_EQ(FormatDuration(std::numeric_limits<double>::quiet_NaN()), "?");
}

TEST(Text, ExactNumbersReadBackTheSame) {
  EXPECT_EQ(FormatExact(0.1), "0.1");
  EXPECT_EQ(FormatExact(1e-5), "1e-05");
  for (const double value : {1.0 / 3, 23.4, 1e300}) EXPECT_EQ(std::stod(FormatExact(value)), value);
}

}  // namespace
}  // namespace attnfleet::client
