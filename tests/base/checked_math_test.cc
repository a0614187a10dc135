// SPDX-License-Identifier: Apache-2.0
#include "base/checked_math.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>

namespace hotset {
namespace {

TEST(CheckedMath, ProductsThatFitAndDoNot) {
  EXPECT_EQ(checked_mul<int64_t>(1 << 20, 1 << 20), int64_t{1} << 40);
  EXPECT_FALSE(checked_mul<int64_t>(int64_t{1} << 32, int64_t{1} << 31));
  EXPECT_FALSE(checked_add<uint64_t>(std::numeric_limits<uint64_t>::max(), 1));
}

TEST(CheckedMath, NumelRefusesNegativeAndWrappedShapes) {
  EXPECT_EQ(checked_numel({}), 1);  // a scalar
  EXPECT_EQ(checked_numel(std::array<int64_t, 3>{4, 0, 5}), 0);
  EXPECT_FALSE(checked_numel(std::array<int64_t, 2>{-1, 4}));
  EXPECT_FALSE(checked_numel(std::array<int64_t, 2>{int64_t{1} << 32, int64_t{1} << 32}));
}

}  // namespace
}  // namespace hotset
