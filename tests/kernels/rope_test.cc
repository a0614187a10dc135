// SPDX-License-Identifier: Apache-2.0
// Rotation against double precision at far positions, what must stay untouched, and YaRN's ramp.
#include "kernels/rope.h"

#include "kernels/op_testing.h"

namespace hotset {
namespace {

using testing::for_each_isa;
using testing::Numbers;

TEST(Rope, MatchesDoublePrecisionAtFarPositions) {
  const std::vector<int64_t> positions = {0, 1, 63, 4097, 200000, 262143, 1000000};
  for (const int64_t rotary : {2, 20, 64}) {
    const int64_t heads = 3, dim = 80, tokens = std::ssize(positions);
    Numbers numbers(rotary);
    const auto x = numbers.normal(tokens * heads * dim);
    const RopeTable table = make_rope_table({.theta = 5e6, .rotary_dims = rotary});
    std::vector<double> expected(x.begin(), x.end());
    for (int64_t row = 0; row < tokens * heads; ++row) {
      for (int64_t i = 0; i < rotary / 2; ++i) {
        const double angle =
            static_cast<double>(positions[row / heads]) *
            std::pow(5e6, -2.0 * static_cast<double>(i) / static_cast<double>(rotary));
        const double a = x[row * dim + i], b = x[row * dim + rotary / 2 + i];
        expected[row * dim + i] = a * std::cos(angle) - b * std::sin(angle);
        expected[row * dim + rotary / 2 + i] = b * std::cos(angle) + a * std::sin(angle);
      }
    }
    for_each_isa([&](cpu::Queue& queue, const std::string& isa) {
      std::vector<float> angles(tokens * rotary);
      rope_angles(queue, table, positions, angles.data());
      auto y = x;
      rope(queue,
           {.num_tokens = tokens, .num_heads = heads, .head_dim = dim, .rotary_dims = rotary},
           angles.data(), y.data());
      testing::expect_close(y, expected, 3e-7, isa);
      for (int64_t row = 0; row < tokens * heads; ++row) {
        for (int64_t d = rotary; d < dim; ++d) EXPECT_EQ(y[row * dim + d], x[row * dim + d]);
      }
    });
  }
}

// theta 1e7, 64 dims, L 262144: the ramp runs from dimension 14 to 22; for theta 5e6 from 14 to 23.
TEST(Rope, YarnStretchesTheSlowDimensionsOnly) {
  for (const auto& [theta, high] : {std::pair{1e7, 22.0}, std::pair{5e6, 23.0}}) {
    const RopeTable plain = make_rope_table({.theta = theta});
    const RopeTable yarn = make_rope_table({.theta = theta, .yarn = true, .factor = 4.0});
    EXPECT_NEAR(yarn.attention_factor, 1.1386294, 1e-7);
    for (size_t i = 0; i < 32; ++i) {
      const double ramp =
          std::min(1.0, std::max(0.0, (static_cast<double>(i) - 14.0) / (high - 14.0)));
      EXPECT_NEAR(yarn.inv_freq[i] / plain.inv_freq[i], ramp / 4.0 + 1.0 - ramp, 1e-12) << i;
    }
  }
}

TEST(Rope, YarnFactorsCanBeGiven) {
  EXPECT_EQ(
      make_rope_table({.yarn = true, .factor = 4.0, .attention_factor = 1.5}).attention_factor,
      1.5);
  const RopeTable both =
      make_rope_table({.yarn = true, .factor = 4.0, .mscale = 0.5, .mscale_all_dim = 1.0});
  EXPECT_NEAR(both.attention_factor, (0.05 * std::log(4.0) + 1.0) / (0.1 * std::log(4.0) + 1.0),
              1e-12);
  EXPECT_EQ(make_rope_table({.yarn = true, .factor = 1.0}).attention_factor, 1.0);
}

TEST(Rope, YarnScalesCosineAndSine) {
  cpu::WorkerPool pool(1, false);
  cpu::Queue queue{.pool = pool};
  const RopeTable yarn = make_rope_table({.yarn = true, .factor = 4.0});
  const std::vector<int64_t> positions = {0};
  std::vector<float> angles(64);
  rope_angles(queue, yarn, positions, angles.data());
  EXPECT_NEAR(angles[0], 1.1386294f, 1e-6f);
  EXPECT_EQ(angles[32], 0.0f);
}

}  // namespace
}  // namespace hotset
