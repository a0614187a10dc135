// SPDX-License-Identifier: Apache-2.0
// The known answers of Philox4x32-10, as the paper's reference library publishes them, and the
// shape of the uniform numbers made from it.
#include "sampling/random.h"

#include <gtest/gtest.h>

#include <cmath>

namespace hotset {
namespace {

TEST(Philox, GivesThePublishedAnswers) {
  using Block = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(UniformDraw, DependsOnSeedAndDrawOnly) {
  EXPECT_EQ(uniform_draw(3, 5), uniform_draw(3, 5));
  EXPECT_NE(uniform_draw(3, 5), uniform_draw(3, 6));
  EXPECT_NE(uniform_draw(3, 5), uniform_draw(4, 5));
  EXPECT_NE(uniform_draw(1, 0), uniform_draw(1ull << 32, 0));
}

// Kolmogorov distance of n uniform numbers exceeds 1.95/sqrt(n) once in a thousand.
TEST(UniformDraw, IsUniform) {
  constexpr int kBins = 100, kDraws = 200'000;
  int counts[kBins] = {};
  for (int i = 0; i < kDraws; ++i) {
    const double u = uniform_draw(42, static_cast<uint64_t>(i));
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    ++counts[static_cast<int>(u * kBins)];
  }
  int below = 0;
  for (int bin = 0; bin < kBins; ++bin) {
    below += counts[bin];
    const double distance = std::abs(below / double{kDraws} - (bin + 1) / double{kBins});
    EXPECT_LT(distance, 1.95 / std::sqrt(double{kDraws})) << "bin " << bin;
  }
}

}  // namespace
}  // namespace hotset
