// SPDX-License-Identifier: Apache-2.0
// All 65,536 half and bfloat16 patterns go there and back; rounding is checked at the ties.
#include "base/float16.h"

#include <gtest/gtest.h>

#include <cmath>

namespace hotset {
namespace {

TEST(Float16, EveryPatternSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto b = static_cast<uint16_t>(bits);
    const float half = half_to_float(b);
    if (!std::isnan(half)) {
      EXPECT_EQ(float_to_half(half), b);
    }
    const float bf16 = bf16_to_float(b);
    if (!std::isnan(bf16)) {
      EXPECT_EQ(float_to_bf16(bf16), b);
    }
  }
}

TEST(Float16, TiesGoToEvenAndLargeValuesToInfinity) {
  EXPECT_EQ(float_to_half(1.0f + 0x1p-11f), float_to_half(1.0f));
  EXPECT_EQ(float_to_half(1.0f + 3 * 0x1p-11f), float_to_half(1.0f + 0x1p-9f));
  EXPECT_EQ(float_to_half(65519.0f), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_half(-0x1p-25f), 0x8000);
  EXPECT_EQ(float_to_bf16(1.0f + 0x1p-8f), float_to_bf16(1.0f));
  EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(NAN))));
  EXPECT_TRUE(std::isnan(half_to_float(float_to_half(NAN))));
}

TEST(Float16, E4M3HasTheDocumentedExtremes) {
  EXPECT_EQ(e4m3_to_float(0x7e), 448.0f);
  EXPECT_TRUE(std::isnan(e4m3_to_float(0x7f)));
  EXPECT_EQ(e4m3_to_float(0x01), 0x1p-9f);
  EXPECT_EQ(e4m3_to_float(0x08), 0x1p-6f);
  EXPECT_EQ(e4m3_to_float(0xb8), -1.0f);
}

}  // namespace
}  // namespace hotset
