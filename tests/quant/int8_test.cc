// SPDX-License-Identifier: Apache-2.0
// 16-bit weights at 8 bits: the fast packer against pack_rows, and the loss it reports against the
// same sums made in double from what the matrix gives back.
#include "quant/int8.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "base/float16.h"

namespace hotset {
namespace {

std::vector<float> normal_values(size_t count, unsigned seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<float> out(count);
  for (float& v : out) v = normal(rng);
  return out;
}

template <typename T>
const std::byte* bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values)).data();
}

TEST(Int8, SameBytesAsTheSlowPathAndAnHonestLoss) {
  for (int64_t rows = 1; rows <= 40; rows += rows < 18 ? 1 : 5) {
    for (const int64_t cols : {1, 7, 8, 100, 128, 129, 300}) {
      const PackedShape shape = int8_shape(rows, cols);
      const auto values = normal_values(static_cast<size_t>(rows * cols), 9);
      std::vector<std::byte> slow(static_cast<size_t>(shape.bytes()));
      pack_rows(shape, values.data(), 0, rows, slow.data());
      std::vector<std::byte> fast(slow.size());
      RequantLoss loss;
      for (const PackLoops* loops : all_pack_loops()) {
        std::fill(fast.begin(), fast.end(), std::byte{0xa5});
        const RequantLoss before = std::exchange(loss, {});
        for (int64_t tile = 0; tile < shape.num_tiles(); ++tile) {
          pack_int8(shape, CodeKind::kF32, bytes_of(values) + 4 * tile * kTileRows * cols, tile, 1,
                    fast.data(), loss, *loops);
        }
        ASSERT_EQ(fast, slow) << rows << "x" << cols << ", " << loops->name;
        if (loops == &pack_loops_scalar()) continue;
        EXPECT_EQ(loss.sum_square_error, before.sum_square_error) << loops->name;
        EXPECT_EQ(loss.sum_square_weight, before.sum_square_weight) << loops->name;
        EXPECT_EQ(loss.max_error, before.max_error) << loops->name;
      }

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
  pack_int8(shape, CodeKind::kF32, bytes_of(values), 0, 1, data.data(), loss);
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

TEST(Int8, SixteenBitValuesAreWidenedExactly) {
  std::vector<uint16_t> all(65536);
  std::iota(all.begin(), all.end(), uint16_t{0});
  std::vector<float> wide(all.size() + 6);
  for (const PackLoops* loops : all_pack_loops()) {
    const size_t count = all.size() - 3;
    const auto widen = [&](PackLoops::Widen how) {
      std::fill(wide.begin(), wide.end(), 1.0f);
      const float largest = how(bytes_of(all), static_cast<int64_t>(count), 65536, wide.data());
      EXPECT_TRUE(std::isnan(largest));
      for (size_t i = count; i < wide.size(); ++i) EXPECT_EQ(wide[i], i < 65536 ? 0.0f : 1.0f);
    };
    widen(loops->widen_f16);
    for (size_t i = 0; i < count; ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(wide[i]), std::bit_cast<uint32_t>(half_to_float(all[i])))
          << loops->name << ", half " << i;
    }
    widen(loops->widen_bf16);
    for (size_t i = 0; i < count; ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(wide[i]), static_cast<uint32_t>(all[i]) << 16)
          << loops->name << ", bf16 " << i;
    }
  }
}

TEST(Int8, StoredKindsGiveTheSameBytes) {
  const int64_t rows = 19, cols = 300;
  const PackedShape shape = int8_shape(rows, cols);
  for (const CodeKind kind : {CodeKind::kBF16, CodeKind::kF16}) {
    std::vector<float> values = normal_values(static_cast<size_t>(rows * cols), 11);
    std::vector<uint16_t> stored;
    for (float& v : values) {
      const bool half = kind == CodeKind::kF16;
      stored.push_back(half ? float_to_half(v) : float_to_bf16(v));
      v = half ? half_to_float(stored.back()) : bf16_to_float(stored.back());
    }
    std::vector<std::byte> slow(static_cast<size_t>(shape.bytes())), fast(slow.size());
    pack_rows(shape, values.data(), 0, rows, slow.data());
    RequantLoss loss;
    pack_int8(shape, kind, bytes_of(stored), 0, shape.num_tiles(), fast.data(), loss);
    EXPECT_EQ(fast, slow) << code_kind_name(kind);
    EXPECT_TRUE(loss.representable());
  }
}

// Scales near and below the smallest halves, where a code would round past 127 but for the clamp.
TEST(Int8, TinyWeightsAreHeldWithin127) {
  const int64_t rows = 16, cols = 128;
  const PackedShape shape = int8_shape(rows, cols);
  for (float largest = 0x1p-28f; largest < 0x1p-8f; largest *= 1.09f) {
    std::vector<float> values = normal_values(static_cast<size_t>(rows * cols), 3);
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = std::clamp(values[i] * largest * 40, -largest, largest);
    }
    values[5] = largest;
    std::vector<std::byte> slow(static_cast<size_t>(shape.bytes())), fast(slow.size());
    pack_rows(shape, values.data(), 0, rows, slow.data());
    for (const PackLoops* loops : all_pack_loops()) {
      RequantLoss loss;
      pack_int8(shape, CodeKind::kF32, bytes_of(values), 0, 1, fast.data(), loss, *loops);
      ASSERT_EQ(fast, slow) << "largest " << largest << ", " << loops->name;
    }
  }
}

TEST(Int8, WeightsBeyondAHalfScaleAreSeen) {
  const PackedShape shape = int8_shape(16, 256);
  std::vector<std::byte> data(static_cast<size_t>(shape.bytes()));
  const auto representable = [&](float outlier) {
    std::vector<float> values(16 * 256, 0.5f);
    values[777] = outlier;
    RequantLoss loss;
    pack_int8(shape, CodeKind::kF32, bytes_of(values), 0, 1, data.data(), loss);
    return loss.representable();
  };
  EXPECT_TRUE(representable(-8.3e6f));
  EXPECT_FALSE(representable(8.4e6f));
  EXPECT_FALSE(representable(-1e30f));
  EXPECT_FALSE(representable(std::numeric_limits<float>::infinity()));
  EXPECT_FALSE(representable(std::numeric_limits<float>::quiet_NaN()));
}

}  // namespace
}  // namespace hotset
