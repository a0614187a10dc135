// SPDX-License-Identifier: Apache-2.0
// Streaming equals the whole, whatever the cuts are.
#include "tokenizer/detokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "base/utf8.h"
#include "small_tokenizer.h"

namespace hotset::testing {
namespace {

const Tokenizer& tokenizer() {
  static const Tokenizer* const loaded = new Tokenizer(SmallTokenizer{}.load().value());
  return *loaded;
}

// The ids of the small tokenizer's bytes are the bytes.
void check_stream(std::string_view bytes) {
  Detokenizer detokenizer(tokenizer());
  std::string text;
  for (const char byte : bytes) {
    const std::string part = detokenizer.push(static_cast<uint8_t>(byte));
    ASSERT_TRUE(utf8_is_valid(part));
    text += part;
  }
  text += detokenizer.finish();
  ASSERT_EQ(text, utf8_replace_invalid(bytes));
}

TEST(Detokenizer, EveryCutOfACharacterHoldsBack) {
  const std::string text = "a\u00e9\u4e2d\U0001f44d\U0010ffff";
  for (size_t end = 0; end <= text.size(); ++end) {
    for (size_t begin = 0; begin <= end; ++begin) check_stream(text.substr(begin, end - begin));
  }
  Detokenizer detokenizer(tokenizer());
  EXPECT_EQ(detokenizer.push(0xf0), "");
  EXPECT_EQ(detokenizer.push(0x9f), "");
  EXPECT_EQ(detokenizer.push(0x91), "");
  EXPECT_EQ(detokenizer.push(0x8d), "\U0001f44d");
  EXPECT_EQ(detokenizer.push(0xe4), "");
  EXPECT_EQ(detokenizer.push('a'), "\ufffda");
  EXPECT_EQ(detokenizer.push(0xe4), "");
  EXPECT_EQ(detokenizer.finish(), "\ufffd");
  EXPECT_EQ(detokenizer.finish(), "");
}

TEST(Detokenizer, RandomBytes) {
  static constexpr uint8_t kBytes[] = {'a',  0x80, 0xbf, 0xc1, 0xc2, 0xdf, 0xe0, 0xa0, 0xed,
                                       0x9f, 0xef, 0xf0, 0x90, 0xf4, 0x8f, 0xf5, 0xff};
  std::mt19937_64 rng(11);
  for (int i = 0; i < 50'000; ++i) {
    std::string bytes;
    for (size_t n = rng() % 12; n > 0; --n) {
      bytes += static_cast<char>(rng() % 4 == 0 ? rng() : kBytes[rng() % std::size(kBytes)]);
    }
    check_stream(bytes);
  }
}

TEST(Detokenizer, SpecialAndUnknownIds) {
  Detokenizer keep(tokenizer()), skip(tokenizer(), true);
  EXPECT_EQ(keep.push(300), "<|end|>");
  EXPECT_EQ(skip.push(300), "");
  EXPECT_EQ(skip.push(301), "<think>") << "added, but not special";
  for (const int32_t id : {-1, 299, 302, 1 << 30, INT32_MIN, INT32_MAX})
    EXPECT_EQ(keep.push(id), "");
}

}  // namespace
}  // namespace hotset::testing
