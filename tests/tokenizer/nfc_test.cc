// SPDX-License-Identifier: Apache-2.0
// NFC: identity where it should be, and long runs of marks equal to what ICU makes of them.
#include "tokenizer/nfc.h"

#include <gtest/gtest.h>
#include <unicode/normalizer2.h>
#include <unicode/unistr.h>

#include <random>

#include "base/utf8.h"

namespace hotset::testing {
namespace {

std::string by_icu(const std::string& text) {
  UErrorCode status = U_ZERO_ERROR;
  std::string out;
  icu::Normalizer2::getNFCInstance(status)
      ->normalize(icu::UnicodeString::fromUTF8(text), status)
      .toUTF8String(out);
  EXPECT_TRUE(U_SUCCESS(status));
  return out;
}

std::string nfc(std::string_view text) {
  std::string buffer;
  return std::string(to_nfc(text, buffer));
}

TEST(Nfc, NormalizedTextIsReturnedAsItIs) {
  std::string buffer;
  for (const std::string_view text :
       {"", "plain", "Gr\u00f6\u00dfe", "\u6f22\u5b57", "\U0001f44d"}) {
    EXPECT_EQ(to_nfc(text, buffer).data(), text.data());
  }
  EXPECT_EQ(nfc("e\u0301\u0438\u0306"), "\u00e9\u0439");
  EXPECT_EQ(nfc("\u212b"), "\u00c5");
  EXPECT_EQ(nfc("\u1100\u1161\u11a8"), "\uac01");
}

// Up to far more marks in a row than the length from which we order them ourselves.
TEST(Nfc, LongRunsOfMarksEqualIcu) {
  const char32_t marks[] = {0x300, 0x301, 0x323,  0x344,   0x345,   0x327,  0x5b0, 0x3099, 0xf71,
                            0xf73, 0xf81, 0x302a, 0x1d165, 0x1d16e, 0x20d2, 0x334, 0x340};
  std::mt19937_64 rng(5);
  for (int round = 0; round < 400; ++round) {
    std::string text;
    for (size_t runs = 1 + rng() % 3; runs > 0; --runs) {
      const char32_t starters[] = {'a', 0xe9, 0x4e2d, 0x1100, 0xf40, 0x958};
      if (rng() % 4 != 0) utf8_append(text, starters[rng() % std::size(starters)]);
      for (size_t n = rng() % 200; n > 0; --n) utf8_append(text, marks[rng() % std::size(marks)]);
    }
    ASSERT_EQ(nfc(text), by_icu(text));
  }
}

TEST(Nfc, AMillionMarksInTheWorstOrder) {
  std::string text = "e\u0301";
  for (int i = 0; i < 250'000; ++i) text += "\u0301";
  for (int i = 0; i < 250'000; ++i) text += "\u0323";
  for (int i = 0; i < 250'000; ++i) text += "\u0f73";
  const std::string once = nfc(text);
  EXPECT_EQ(nfc(once), once);
  EXPECT_TRUE(once.starts_with("\u1eb9")) << "e with the dot below comes first";
}

}  // namespace
}  // namespace hotset::testing
