// SPDX-License-Identifier: Apache-2.0
#include "quant/packed_matrix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace hotset {
namespace {

std::vector<float> random_values(size_t count) {
  std::mt19937 rng(7);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& v : values) v = normal(rng);
  return values;
}

TEST(PackedMatrix, LayoutIsTheDocumentedOne) {
  PackedShape shape{.code = CodeKind::kAffine4,
                    .scale = ScaleKind::kF16,
                    .has_zeros = true,
                    .rows = 17,
                    .cols = 40,
                    .group = 32};
  EXPECT_EQ(shape.num_tiles(), 2);
  EXPECT_EQ(shape.num_groups(), 2);
  EXPECT_EQ(shape.group_bytes(), 16 * 2 + 16 + 16 * 32 / 2);
  std::vector<std::byte> data(static_cast<size_t>(shape.bytes()));
  set_code(shape, data.data(), 3, 13, 9);  // step 1, b = 1, high nibble
  EXPECT_EQ(std::to_integer<int>(data[48 + 64 + 4 * 3 + 1]), 9 << 4);
  set_zero(shape, data.data(), 3, 0, 5);
  set_scale(shape, data.data(), 3, 0, 0.5f);
  std::vector<float> row(40);
  PackedMatrix matrix{shape};
  matrix.data = data.data();
  dequantize_row(matrix, 3, row);
  EXPECT_EQ(row[13], (9 - 5) * 0.5f);
  EXPECT_EQ(row[12], (0 - 5) * 0.5f);
}

TEST(PackedMatrix, PlainKindsGiveBackTheirValues) {
  const int64_t rows = 35, cols = 13;
  const std::vector<float> values = random_values(static_cast<size_t>(rows * cols));
  for (const CodeKind code : {CodeKind::kF32, CodeKind::kF16, CodeKind::kBF16}) {
    PackedMatrix matrix{plain_shape(code, rows, cols)};
    std::vector<std::byte> data(static_cast<size_t>(matrix.bytes()));
    pack_rows(matrix, values.data(), 0, rows, data.data());
    matrix.data = data.data();
    const float tolerance = code == CodeKind::kF32   ? 0.0f
                            : code == CodeKind::kF16 ? 0x1p-11f
                                                     : 0x1p-8f;
    std::vector<float> row(static_cast<size_t>(cols));
    for (int64_t r = 0; r < rows; ++r) {
      dequantize_row(matrix, r, row);
      for (int64_t c = 0; c < cols; ++c) {
        const float want = values[static_cast<size_t>(r * cols + c)];
        EXPECT_NEAR(row[static_cast<size_t>(c)], want, tolerance * std::fabs(want));
      }
    }
  }
}

TEST(PackedMatrix, Int8IsWithinHalfAStepOfItsGroup) {
  const int64_t rows = 19, cols = 200;
  const std::vector<float> values = random_values(static_cast<size_t>(rows * cols));
  PackedMatrix matrix{int8_shape(rows, cols)};
  std::vector<std::byte> data(static_cast<size_t>(matrix.bytes()));
  pack_rows(matrix, values.data(), 0, rows, data.data());
  matrix.data = data.data();
  std::vector<float> row(static_cast<size_t>(cols));
  for (int64_t r = 0; r < rows; ++r) {
    dequantize_row(matrix, r, row);
    for (int64_t c = 0; c < cols; ++c) {
      const auto first = values.begin() + r * cols + c / 128 * 128;
      const auto last = values.begin() + r * cols + std::min<int64_t>(cols, (c / 128 + 1) * 128);
      const float amax = std::fabs(*std::max_element(
          first, last, [](float a, float b) { return std::fabs(a) < std::fabs(b); }));
      EXPECT_NEAR(row[static_cast<size_t>(c)], values[static_cast<size_t>(r * cols + c)],
                  amax / 127 * 0.51f);
    }
  }
}

TEST(PackedMatrix, InputOrderIsUndone) {
  PackedMatrix matrix{plain_shape(CodeKind::kF32, 1, 3)};
  std::vector<std::byte> data(static_cast<size_t>(matrix.bytes()));
  const float values[] = {1, 2, 3};
  pack_rows(matrix, values, 0, 1, data.data());
  const int32_t order[] = {2, 0, 1};
  matrix.data = data.data();
  matrix.input_order = order;
  std::vector<float> row(3);
  dequantize_row(matrix, 0, row);
  EXPECT_EQ(row, (std::vector<float>{2, 3, 1}));
}

}  // namespace
}  // namespace hotset
