#include "proto/utf8.h"

#include <gtest/gtest.h>

namespace attnfleet {
namespace {

TEST(ToUtf8, LeavesWellFormedTextAlone) {
  for (const char* text : {"", "plain\n", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xed\x9f\xbf"}) {
    EXPECT_EQ(ToUtf8(text), text);
  }
}

TEST(ToUtf8, ReplacesEveryOtherByte) {
  EXPECT_EQ(ToUtf8("abc\xff"), "abc?");
  EXPECT_EQ(ToUtf8("\x82\xac cut in front"), "?? cut in front");
  EXPECT_EQ(ToUtf8("cut behind \xe2\x82"), "cut behind ??");
  EXPECT_EQ(ToUtf8("\xc0\xaf"), "??") << "overlong";
  EXPECT_EQ(ToUtf8("\xed\xa0\x80"), "???") << "a surrogate";
  EXPECT_EQ(ToUtf8("\xf4\x90\x80\x80"), "????") << "beyond Unicode";
}

}  // namespace
}  // namespace attnfleet
