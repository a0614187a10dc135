// SPDX-License-Identifier: Apache-2.0
// Long runs of every kind of character, up to a million: no crash, no loss, and time that grows
// with the length (a quadratic step anywhere would run into the test's time limit).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <span>

#include "base/utf8.h"
#include "small_tokenizer.h"
#include "tokenizer/tokenizer.h"

namespace hotset::testing {
namespace {

constexpr std::string_view kUnits[] = {
    "a",      "A",          "\u00e9", "\u044f", "\u05d0", "\u0627", "\u0915", "\u4e2d",
    "\uac00", "1",          "\u0663", "\u2167", " ",      "\t",     "\n",     "\r",
    "\r\n",   " \n",        "\u00a0", "\u3000", "\u2028", "\u0301", "\u0323", "\u0301\u0323",
    "\u0f73", "e\u0301",    "\u1100", "\u1161", "\u20dd", "'",      "'s",     "!",
    "-",      "\u2014",     "$",      "\u20ac", "+",      "^",      "_",      "(",
    "\u00ab", "\U0001f44d", "\u200d", "\u00ad", "\ufeff", "\ue000", "\x01",   "<",
    "<|",     "<|im_end|>", "a1",     "a ",     " a",     "ab",     "\\",     "\"",
};

// A million of these; a hundred thousand of the others.
constexpr std::string_view kLongUnits[] = {"a",      "\u4e2d",       "1", " ",  "\n",        " \n",
                                           "\u0301", "\u0301\u0323", "!", "<|", "\U0001f44d"};

std::string run_of(std::string_view unit, size_t bytes) {
  std::string text;
  text.reserve(bytes + unit.size());
  while (text.size() < bytes) text += unit;
  return text;
}

void check_runs(const Tokenizer& tokenizer, size_t bytes,
                std::span<const std::string_view> units = kUnits) {
  for (const std::string_view unit : units) {
    for (const std::string_view end : {"", "x", " ", "\n"}) {
      if (bytes >= 100'000 && end != "x") continue;
      const std::string text = run_of(unit, bytes) + std::string(end);
      const auto ids = tokenizer.tokenize(text);
      ASSERT_TRUE(ids) << ids.error().message;
      const std::string back = tokenizer.detokenize(*ids);
      const auto again = tokenizer.tokenize(back);
      ASSERT_TRUE(again);
      ASSERT_EQ(*again, *ids) << fmt::format("{} bytes of '{}' and '{}'", bytes, unit, end);
    }
  }
}

TEST(Runs, QwenUpToAMillion) {
  const auto tokenizer = Tokenizer::load(HOTSET_QWEN_TOKENIZER);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message
                         << "; run: tools/tokenizer/fetch_qwen_vocab.sh";
  for (const size_t bytes : {1'000, 10'000, 100'000}) check_runs(*tokenizer, bytes);
  check_runs(*tokenizer, 1'000'000, kLongUnits);
}

TEST(Runs, TenMillionLetters) {
  const auto tokenizer = Tokenizer::load(HOTSET_QWEN_TOKENIZER);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message
                         << "; run: tools/tokenizer/fetch_qwen_vocab.sh";
  const std::string text = run_of("a", 10'000'000);
  const auto ids = tokenizer->tokenize(text);
  ASSERT_TRUE(ids);
  EXPECT_EQ(tokenizer->detokenize(*ids), text);
}

TEST(Runs, RegexUpToAHundredThousand) {
  SmallTokenizer small;  // GPT-2's pattern goes through PCRE2
  const auto tokenizer = small.load();
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  for (const size_t bytes : {1'000, 100'000}) check_runs(*tokenizer, bytes);
}

TEST(Runs, RegexTenMillion) {
  SmallTokenizer small;
  const auto tokenizer = small.load();
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  for (const std::string_view unit : {"a", " ", "\n", "\u4e2d"}) {
    const std::string text = run_of(unit, 10'000'000) + "x";
    const auto ids = tokenizer->tokenize(text);
    ASSERT_TRUE(ids) << ids.error().message;
    EXPECT_TRUE(tokenizer->detokenize(*ids) == text);
  }
}

}  // namespace
}  // namespace hotset::testing
