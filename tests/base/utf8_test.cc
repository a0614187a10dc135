// SPDX-License-Identifier: Apache-2.0
#include "base/utf8.h"

#include <gtest/gtest.h>

namespace hotset {
namespace {

TEST(Utf8, AcceptsWhatRfc3629Accepts) {
  EXPECT_TRUE(utf8_is_valid("a\u00e9\u6f22\U0001f44d"));
  EXPECT_FALSE(utf8_is_valid("\xc0\x80"));          // overlong
  EXPECT_FALSE(utf8_is_valid("\xed\xa0\x80"));      // surrogate
  EXPECT_FALSE(utf8_is_valid("\xf4\x90\x80\x80"));  // above U+10FFFF
  EXPECT_EQ(utf8_valid_prefix("ab\xe6\xbc"), 2u);
}

TEST(Utf8, TellsACutCharacterFromABrokenOne) {
  EXPECT_TRUE(utf8_is_incomplete("\xe6\xbc"));
  EXPECT_FALSE(utf8_is_incomplete("\xe6\xbc\xa2"));
  EXPECT_FALSE(utf8_is_incomplete("\xe6x"));
  EXPECT_FALSE(utf8_is_incomplete("\xff"));
}

TEST(Utf8, ReplacesEachMaximalInvalidPiece) {
  EXPECT_EQ(utf8_replace_invalid("a\xf0\x9f\x91z\xff"), "a\xef\xbf\xbdz\xef\xbf\xbd");
  EXPECT_EQ(utf8_replace_invalid("\xe2\x82"), "\xef\xbf\xbd");
}

TEST(Utf8, AppendsEveryLength) {
  std::string out;
  for (const char32_t c : {U'a', U'\u00e9', U'\u6f22', U'\U0001f44d'}) utf8_append(out, c);
  EXPECT_EQ(out, "a\u00e9\u6f22\U0001f44d");
}

}  // namespace
}  // namespace hotset
