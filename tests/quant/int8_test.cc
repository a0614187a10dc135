// SPDX-License-Identifier: Apache-2.0
// 16-bit weights at 8 bits: the fast packer against pack_rows, and the loss it reports against the
// same sums made in double from what the matrix gives back.
#include "quant/int8.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace hotset {
namespace {

std::vector<float> normal_values(size_t count, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<float> out(count);
  for (float& v : out) v = normal(rng);
  return out;
}

TEST(Int8, SameBytesAsTheSlowPathAndAnHonestLoss) {
  for (int64_t rows = 1; rows <= 40; rows += rows < 18 ? 1 : 5) {
    for (const int64_t cols : {1, 7, 8, 100, 128, 129, 300}) {
      const PackedShape shape = int8_shape(rows, cols);
      const auto values = normal_values(static_cast<size_t>(rows * cols), 9);
      std::vector<std::byte> slow(static_cast<size_t>(shape.bytes()));
      pack_rows(shape, values.data(), 0, rows, slow.data());
      std::vector<std::byte> fast(slow.size(), std::byte{0xa5});
      RequantLoss loss;
      for (int64_t tile = 0; tile < shape.num_tiles(); ++tile) {
        pack_int8(shape, values.data() + tile * kTileRows * cols, tile, 1, fast.data(), loss);
      }
      ASSERT_EQ(fast, slow) << rows << "x" << cols;

      PackedMatrix matrix{shape};
      matrix.data = fast.data();
      double max_error = 0, max_weight = 0, square_error = 0, square_weight = 0;
      std::vector<float> row(static_cast<size_t>(cols));
      for (int64_t r = 0; r < rows; ++r) {
        dequantize_row(matrix, r, row);
        for (int64_t c = 0; c < cols; ++c) {
          const double want = values[static_cast<size_t>(r * cols + c)];
          const double error = std::fabs(row[static_cast<size_t>(c)] - want);
          max_error = std::max(max_error, error);
          max_weight = std::max(max_weight, std::fabs(want));
          square_error += error * error;
          square_weight += want * want;
        }
      }
      EXPECT_NEAR(loss.max_error, max_error, 1e-6 * max_error + 1e-12);
      EXPECT_EQ(loss.max_weight, max_weight);
      EXPECT_NEAR(loss.sum_square_error, square_error, 1e-4 * square_error + 1e-16);
      EXPECT_NEAR(loss.sum_square_weight, square_weight, 1e-4 * square_weight);
      // Half a step, and the fp16 rounding of the scale (2^-11, or 2^-25 where it is subnormal).
      EXPECT_LE(max_error, 0.5 * max_weight / 127 * 1.01 + 127 * 0x1p-25 + max_weight * 0x1p-11);
    }
  }
}

TEST(Int8, ZeroRowsAndOutliers) {
  const int64_t rows = 3, cols = 256;
  std::vector<float> values(static_cast<size_t>(rows * cols), 0.0f);
  values[256] = -5.0f;  // one outlier in the second row
  values[256 + 1] = 0.01f;
  const PackedShape shape = int8_shape(rows, cols);
  std::vector<std::byte> data(static_cast<size_t>(shape.bytes()));
  RequantLoss loss;
  pack_int8(shape, values.data(), 0, 1, data.data(), loss);
  PackedMatrix matrix{shape};
  matrix.data = data.data();
  std::vector<float> row(static_cast<size_t>(cols));
  dequantize_row(matrix, 0, row);
  EXPECT_TRUE(std::all_of(row.begin(), row.end(), [](float v) { return v == 0.0f; }));
  dequantize_row(matrix, 1, row);
  EXPECT_NEAR(row[0], -5.0f, 5.0f * 0x1p-11f);
  EXPECT_EQ(row[1], 0.0f);  // below half a step: gone, and the loss says so
  EXPECT_GE(loss.max_error, 0.0099);
}

}  // namespace
}  // namespace hotset
