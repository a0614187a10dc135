// SPDX-License-Identifier: Apache-2.0
// Results of the GPU against those of the CPU, in shares of the largest expected value.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>

namespace hotset::testing {

// |actual − expected| <= tolerance · max |expected|, for every element; names the worst.
inline void expect_near_scale(std::span<const float> actual, std::span<const float> expected,
                              double tolerance, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  double scale = 1e-30, worst_error = -1.0;
  size_t worst = 0;
  for (const float x : expected) scale = std::max(scale, std::abs(static_cast<double>(x)));
  for (size_t i = 0; i < actual.size(); ++i) {
    double error = std::abs(static_cast<double>(actual[i]) - expected[i]) / scale;
    if (std::isnan(error)) error = INFINITY;
    if (error > worst_error) worst_error = error, worst = i;
  }
  EXPECT_LE(worst_error, tolerance)
      << what << ": worst element " << worst << " of " << actual.size() << ": " << actual[worst]
      << ", expected " << expected[worst] << ", scale " << scale;
}

}  // namespace hotset::testing
