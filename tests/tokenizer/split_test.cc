// SPDX-License-Identifier: Apache-2.0
// The Qwen scanner against the same pattern in PCRE2, and the regex walk's own rules.
#include "tokenizer/split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unicode/uchar.h>

#include <random>

#include "base/utf8.h"

namespace hotset::testing {
namespace {

using ::testing::ElementsAre;
using Pieces = std::vector<std::string>;

Pieces pieces(const Splitter& splitter, std::string_view text) {
  Pieces out;
  const Status status = splitter.for_each_piece(
      text, [&](std::string_view piece) { return !out.emplace_back(piece).empty(); });
  EXPECT_TRUE(status) << status.error().message;
  return out;
}

// Equal to the Qwen pattern in meaning, unequal in text: goes through PCRE2.
Splitter qwen_by_regex() {
  return Splitter::compile("(?:" + std::string(kQwenPattern) + ")").value();
}

TEST(Split, QwenPatternByHand) {
  const Splitter qwen = Splitter::compile(kQwenPattern).value();
  EXPECT_THAT(pieces(qwen, "I'll  pay 1234.5!\r\n\n  ok"),
              ElementsAre("I", "'ll", " ", " pay", " ", "1", "2", "3", "4", ".", "5", "!\r\n\n",
                          " ", " ok"));
  EXPECT_THAT(pieces(qwen, "  \n  \n\tx  "), ElementsAre("  \n  \n", "\tx", "  "));
  EXPECT_THAT(pieces(qwen, "'S'LLx'lx '"), ElementsAre("'S", "'LL", "x", "'lx", " '"));
  EXPECT_THAT(pieces(qwen, "'\u017fa"), ElementsAre("'\u017f", "a"));
  EXPECT_THAT(pieces(qwen, "e\u0301a\u180ea"), ElementsAre("e", "\u0301a", "\u180ea"));
  EXPECT_THAT(pieces(qwen, "\na \n"), ElementsAre("\n", "a", " \n"));
}

// Every character that PCRE2 10.42's Unicode 14 knows, in the contexts that tell classes apart.
TEST(Split, ScannerEqualsRegexOnEveryCharacter) {
  const Splitter scanner = Splitter::compile(kQwenPattern).value();
  const Splitter regex = qwen_by_regex();
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    UVersionInfo age;
    u_charAge(static_cast<UChar32>(c), age);
    if (age[0] == 0 || age[0] > 14) continue;
    std::string one;
    utf8_append(one, c);
    const std::string text =
        "a" + one + "b1" + one + one + " " + one + "\n" + one + "  " + one + "'" + one;
    ASSERT_EQ(pieces(scanner, text), pieces(regex, text)) << "U+" << std::hex << +c;
  }
}

TEST(Split, ScannerEqualsRegexOnRandomText) {
  const Splitter scanner = Splitter::compile(kQwenPattern).value();
  const Splitter regex = qwen_by_regex();
  static constexpr std::string_view kParts[] = {
      "a",      "Z",      "s",          "S",      "t",      "ll",     "lL", "re", "ve",
      "m",      "d",      "\u017f",     "'",      " ",      "  ",     "\t", "\n", "\r",
      "\u00a0", "\u0085", "\u3000",     "1",      "\u0663", "\u2167", "!",  "-",  "\u0301",
      "\u4e2d", "\u00e9", "\U0001f44d", "\u200d", "\u180e", "\x1c"};
  std::mt19937_64 rng(7);
  for (int i = 0; i < 200'000; ++i) {
    std::string text;
    for (size_t n = 1 + rng() % 12; n > 0; --n) text += kParts[rng() % std::size(kParts)];
    ASSERT_EQ(pieces(scanner, text), pieces(regex, text)) << text;
  }
}

TEST(Split, UnmatchedTextIsAPieceToo) {
  const Splitter splitter = Splitter::compile("[0-9]+").value();
  EXPECT_THAT(pieces(splitter, "ab12\u4e2dd3"), ElementsAre("ab", "12", "\u4e2dd", "3"));
  EXPECT_THAT(pieces(splitter, "ab"), ElementsAre("ab"));
  EXPECT_THAT(pieces(splitter, ""), ElementsAre());
  EXPECT_THAT(pieces(Splitter::compile(std::nullopt).value(), "a b"), ElementsAre("a b"));
}

// A pattern that the probe at load doesn't see through ends in an error, not in a hang.
TEST(Split, SlowPatternsFail) {
  const auto splitter = Splitter::compile("(?:\u0416+)+z");
  ASSERT_TRUE(splitter) << splitter.error().message;
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "\u0416";
  const Status status = splitter->for_each_piece(text, [](std::string_view) { return true; });
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind, ErrorKind::kResource);
}

}  // namespace
}  // namespace hotset::testing
