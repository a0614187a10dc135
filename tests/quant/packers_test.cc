// SPDX-License-Identifier: Apache-2.0
// Each fast packer against the same matrix built element by element with set_code, set_scale and
// set_zero: every byte equal, for odd shapes, short tails, padding lanes and permuted inputs.
// What is stored is random bits; only scales are made finite.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "base/checked_math.h"
#include "base/float16.h"
#include "quant/awq.h"
#include "quant/bitsandbytes.h"
#include "quant/compressed_tensors.h"
#include "quant/formats.h"
#include "quant/fp8.h"
#include "quant/gptq.h"

namespace hotset {
namespace {

using Rng = std::mt19937;

std::vector<std::byte> random_bytes(Rng& rng, int64_t count) {
  std::vector<std::byte> out(static_cast<size_t>(count));
  for (std::byte& b : out) b = static_cast<std::byte>(rng() & 255u);
  return out;
}

// Scales of a kind: normal numbers, so that bits survive the way through float.
std::vector<std::byte> random_scales(Rng& rng, ScaleKind kind, int64_t count) {
  std::vector<std::byte> out;
  for (int64_t i = 0; i < count; ++i) {
    const float value = 0.01f + static_cast<float>(rng() % 1000) * 0.003f;
    const uint32_t bits = kind == ScaleKind::kF16    ? float_to_half(value)
                          : kind == ScaleKind::kBF16 ? float_to_bf16(value)
                                                     : std::bit_cast<uint32_t>(value);
    const auto* bytes = reinterpret_cast<const std::byte*>(&bits);
    out.insert(out.end(), bytes, bytes + scale_bytes(kind));
  }
  return out;
}

float scale_at(ScaleKind kind, const std::vector<std::byte>& scales, int64_t index) {
  const std::byte* at = scales.data() + index * scale_bytes(kind);
  uint32_t bits = 0;
  std::memcpy(&bits, at, static_cast<size_t>(scale_bytes(kind)));
  if (kind == ScaleKind::kF16) return half_to_float(static_cast<uint16_t>(bits));
  if (kind == ScaleKind::kBF16) return bf16_to_float(static_cast<uint16_t>(bits));
  return std::bit_cast<float>(bits);
}

uint32_t bits_at(const std::vector<std::byte>& words, int64_t word, int64_t shift, int bits) {
  uint32_t value = 0;
  std::memcpy(&value, words.data() + 4 * word, 4);
  return (value >> shift) & ((1u << bits) - 1);
}

// The slow way: code(row, col), scale(row, group), zero(row, group) in the packed column order.
template <typename Code, typename Scale, typename Zero>
std::vector<std::byte> build(const PackedShape& shape, Code code, Scale scale, Zero zero) {
  std::vector<std::byte> data(static_cast<size_t>(shape.bytes()));
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t col = 0; col < shape.cols; ++col) {
      set_code(shape, data.data(), row, col, code(row, col));
    }
    for (int64_t g = 0; g < shape.num_groups(); ++g) {
      set_scale(shape, data.data(), row, g, scale(row, g));
      if (shape.has_zeros) {
        set_zero(shape, data.data(), row, g, static_cast<uint8_t>(zero(row, g)));
      }
    }
  }
  return data;
}

void expect_same(const std::vector<std::byte>& got, const std::vector<std::byte>& want,
                 const PackedShape& shape) {
  const auto [at, other] = std::mismatch(got.begin(), got.end(), want.begin(), want.end());
  ASSERT_TRUE(at == got.end()) << "rows " << shape.rows << ", cols " << shape.cols << ", group "
                               << shape.group << ": byte " << at - got.begin() << " of tile "
                               << (at - got.begin()) / shape.tile_bytes() << " is "
                               << std::to_integer<int>(*at) << ", not "
                               << std::to_integer<int>(*other);
}

std::vector<std::byte> dirty(const PackedShape& shape) {
  return std::vector<std::byte>(static_cast<size_t>(shape.bytes()), std::byte{0xa5});
}

// g_idx in order, or every group's inputs scattered.
std::vector<int32_t> groups_of(Rng& rng, int64_t cols, int64_t group, bool scattered) {
  std::vector<int32_t> g_idx(static_cast<size_t>(cols));
  for (int64_t i = 0; i < cols; ++i) {
    g_idx[static_cast<size_t>(i)] = static_cast<int32_t>(i / group);
  }
  if (scattered) std::shuffle(g_idx.begin(), g_idx.end(), rng);
  return g_idx;
}

struct Affine {
  int bits = 4;
  int64_t rows = 0, cols = 0, group = 0;
  bool has_zeros = false, scattered = false;
  ScaleKind scale = ScaleKind::kF16;

  PackedShape shape() const {
    return {.code = bits == 8 ? CodeKind::kInt8 : CodeKind::kAffine4,
            .scale = scale,
            .has_zeros = has_zeros,
            .zero = static_cast<uint8_t>(has_zeros   ? 0
                                         : bits == 8 ? 128
                                                     : 8),
            .rows = rows,
            .cols = cols,
            .group = kernel_group(group, cols)};
  }
  int64_t groups() const { return ceil_div(cols, group); }
};

// How the packed columns of `shape` follow from g_idx.
struct Order {
  std::vector<int32_t> g_idx, order, block_group;
  int64_t input(int64_t col) const { return order.empty() ? col : order[static_cast<size_t>(col)]; }
};

Order order_for(Rng& rng, const Affine& c, const PackedShape& shape) {
  Order out{groups_of(rng, c.cols, c.group, c.scattered), {}, {}};
  if (c.scattered) {
    out.order.resize(static_cast<size_t>(c.cols));
    sort_by_group(out.g_idx, c.groups(), out.order);
  }
  out.block_group.resize(static_cast<size_t>(shape.num_groups()));
  EXPECT_TRUE(uniform_groups(out.g_idx, out.order, shape.group, out.block_group));
  return out;
}

void check_gptq(Rng& rng, const Affine& c, int zero_offset) {
  const PackedShape shape = c.shape();
  const Order order = order_for(rng, c, shape);
  const int64_t per_word = 32 / c.bits;
  const auto codes = random_bytes(rng, c.rows * c.cols * c.bits / 8);
  const auto zeros = random_bytes(rng, c.groups() * c.rows * c.bits / 8);
  const auto scales = random_scales(rng, c.scale, c.groups() * c.rows);
  const GptqWeights weights{.bits = c.bits,
                            .num_groups = c.groups(),
                            .qweight = codes.data(),
                            .qzeros = zeros.data(),
                            .scales = scales.data(),
                            .zero_offset = zero_offset};
  // The zero as the format's writer undoes it: on the whole word, carries included.
  const auto zero = [&](int64_t row, int64_t group) {
    uint32_t word = bits_at(zeros, group * (c.rows / per_word) + row / per_word, 0, 16) |
                    bits_at(zeros, group * (c.rows / per_word) + row / per_word, 16, 16) << 16;
    if (zero_offset == 1) word += c.bits == 4 ? 0x11111111u : 0x01010101u;
    return (word >> (c.bits * (row % per_word))) & ((1u << c.bits) - 1);
  };
  const auto block = [&](int64_t g) { return order.block_group[static_cast<size_t>(g)]; };
  const auto want = build(
      shape,
      [&](int64_t row, int64_t col) {
        const int64_t in = order.input(col);
        return bits_at(codes, (in / per_word) * c.rows + row, c.bits * (in % per_word), c.bits);
      },
      [&](int64_t row, int64_t g) { return scale_at(c.scale, scales, block(g) * c.rows + row); },
      [&](int64_t row, int64_t g) { return zero(row, block(g)); });
  auto got = dirty(shape);
  for (const PackLoops* loops : all_pack_loops()) {
    got = dirty(shape);
    pack_gptq(shape, weights, order.block_group, order.order, 0, shape.num_groups(), got.data(),
              *loops);
    expect_same(got, want, shape);
  }
  if (!c.scattered) {  // group by group, as a load reads them
    got = dirty(shape);
    GptqWeights rest = weights;
    for (int64_t g = 0; g < shape.num_groups(); ++g) {
      pack_gptq(shape, rest, order.block_group, {}, g, 1, got.data());
      rest.qweight += shape.group * c.bits / 32 * 4 * c.rows;
    }
    expect_same(got, want, shape);
  }
  if (!c.has_zeros) return;
  PackedMatrix matrix{shape};
  matrix.data = got.data();
  matrix.input_order = order.order.empty() ? nullptr : order.order.data();
  std::vector<float> packed(static_cast<size_t>(c.cols)), direct(packed.size());
  for (int64_t row = 0; row < c.rows; ++row) {
    dequantize_row(matrix, row, packed);
    dequantize_gptq_row(weights, c.scale, c.rows, order.g_idx, row, direct);
    ASSERT_EQ(packed, direct) << "row " << row;
  }
}

TEST(Packers, Gptq) {
  Rng rng(1);
  for (const int bits : {4, 8}) {
    for (int64_t rows = 32 / bits; rows <= 72; rows += 32 / bits) {
      for (const int64_t cols : {8, 32, 40, 96, 136, 256}) {
        for (const int64_t group : {int64_t{32}, int64_t{64}, int64_t{256}, cols}) {
          const bool even = cols % group == 0;
          for (const bool zeros : {false, true}) {
            Affine c{bits, rows, cols, std::min(group, cols), zeros, false, ScaleKind::kF16};
            check_gptq(rng, c, static_cast<int>(rng() % 2));
            c.scattered = even || group > cols;
            if (c.scattered) check_gptq(rng, c, 1);
          }
        }
      }
    }
  }
}

TEST(Packers, GptqUnevenGroupsAreSeen) {
  std::vector<int32_t> g_idx(64, 0);
  for (size_t i = 31; i < 64; ++i) g_idx[i] = 1;  // 31 inputs of group 0, 33 of group 1
  std::vector<int32_t> blocks(2);
  EXPECT_FALSE(uniform_groups(g_idx, {}, 32, blocks));
  g_idx[31] = 0;
  EXPECT_TRUE(uniform_groups(g_idx, {}, 32, blocks));
  EXPECT_EQ(blocks, (std::vector<int32_t>{0, 1}));
}

TEST(Packers, GptqOtherZerosAreFound) {
  std::vector<uint32_t> zeros(6, 0x77777777u);
  GptqWeights weights{.bits = 4,
                      .num_groups = 3,
                      .qzeros = reinterpret_cast<const std::byte*>(zeros.data()),
                      .zero_offset = 1};
  EXPECT_EQ(find_other_zero(weights, 16, 8), std::nullopt);
  weights.zero_offset = 0;
  EXPECT_EQ(find_other_zero(weights, 16, 7), std::nullopt);
  EXPECT_EQ(find_other_zero(weights, 16, 8), 0);
  zeros[3] = 0x77677777u;  // group 1, output 8 + 5
  EXPECT_EQ(find_other_zero(weights, 16, 7), 16 + 13);
}

TEST(Packers, Awq) {
  Rng rng(2);
  constexpr int kSlot[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  for (const int64_t rows : {8, 16, 24, 40, 120, 128, 136, 144, 264}) {
    for (const int64_t cols : {1, 7, 8, 31, 64, 100, 128, 260}) {
      for (const int64_t group : {int64_t{32}, int64_t{64}, int64_t{128}, int64_t{256}, cols}) {
        const Affine c{4, rows, cols, std::min(group, cols), true, false, ScaleKind::kF16};
        const PackedShape shape = c.shape();
        if (shape.group == 0) continue;
        const auto codes = random_bytes(rng, cols * rows / 2);
        const auto zeros = random_bytes(rng, c.groups() * rows / 2);
        const auto scales = random_scales(rng, c.scale, c.groups() * rows);
        const auto at = [&](const std::vector<std::byte>& from, int64_t line, int64_t row) {
          return bits_at(from, line * (rows / 8) + row / 8, 4 * kSlot[row % 8], 4);
        };
        const auto group_of = [&](int64_t g) { return g * shape.group / c.group; };
        const auto want = build(
            shape, [&](int64_t row, int64_t col) { return at(codes, col, row); },
            [&](int64_t row, int64_t g) {
              return scale_at(c.scale, scales, group_of(g) * rows + row);
            },
            [&](int64_t row, int64_t g) { return at(zeros, group_of(g), row); });
        const AwqWeights weights{c.group, codes.data(), zeros.data(), scales.data()};
        auto got = dirty(shape);
        for (const PackLoops* loops : all_pack_loops()) {
          got = dirty(shape);
          AwqWeights rest = weights;
          for (int64_t g = 0; g < shape.num_groups(); ++g) {  // in pieces, as a load does it
            pack_awq(shape, rest, g, 1, got.data(), *loops);
            rest.qweight += shape.group * rows / 2;
          }
          expect_same(got, want, shape);
        }
        PackedMatrix matrix{shape};
        matrix.data = got.data();
        std::vector<float> packed(static_cast<size_t>(cols)), direct(packed.size());
        dequantize_row(matrix, rows - 1, packed);
        dequantize_awq_row(weights, c.scale, rows, rows - 1, direct);
        ASSERT_EQ(packed, direct);
      }
    }
  }
}

void check_compressed(Rng& rng, const Affine& c) {
  const PackedShape shape = c.shape();
  const Order order = order_for(rng, c, shape);
  const int64_t per_word = 32 / c.bits;
  const int64_t row_words = ceil_div(c.cols, per_word);
  const auto codes = random_bytes(rng, c.rows * row_words * 4);
  const auto zeros = random_bytes(rng, ceil_div(c.rows, per_word) * c.groups() * 4);
  const auto scales = random_scales(rng, c.scale, c.groups() * c.rows);
  CompressedWeights weights{.bits = c.bits,
                            .num_groups = c.groups(),
                            .packed = codes.data(),
                            .scales = scales.data(),
                            .zeros = c.has_zeros ? zeros.data() : nullptr};
  const auto block = [&](int64_t g) { return order.block_group[static_cast<size_t>(g)]; };
  const auto want = build(
      shape,
      [&](int64_t row, int64_t col) {
        const int64_t in = order.input(col);
        return bits_at(codes, row * row_words + in / per_word, c.bits * (in % per_word), c.bits);
      },
      [&](int64_t row, int64_t g) {
        return scale_at(c.scale, scales, row * c.groups() + block(g));
      },
      [&](int64_t row, int64_t g) {
        return bits_at(zeros, (row / per_word) * c.groups() + block(g), c.bits * (row % per_word),
                       c.bits);
      });
  for (const PackLoops* loops : all_pack_loops()) {
    auto got = dirty(shape);
    for (int64_t tile = 0; tile < shape.num_tiles(); ++tile) {  // in pieces, as a load does it
      weights.packed = codes.data() + tile * kTileRows * row_words * 4;
      pack_compressed(shape, weights, order.block_group, order.order, tile, 1, got.data(), *loops);
    }
    expect_same(got, want, shape);
  }
}

TEST(Packers, CompressedTensors) {
  Rng rng(3);
  for (const int bits : {4, 8}) {
    for (int64_t rows = 1; rows <= 40; rows += rows < 4 ? 1 : 3) {
      for (const int64_t cols : {1, 8, 33, 36, 64, 100, 256}) {
        for (const int64_t group : {int64_t{32}, int64_t{128}, cols}) {
          for (const bool zeros : {false, true}) {
            Affine c{bits, rows, cols, std::min(group, cols), zeros, false, ScaleKind::kBF16};
            if (c.shape().group == 0) continue;
            check_compressed(rng, c);
            c.scattered = cols % c.group == 0;
            if (c.scattered) check_compressed(rng, c);
          }
        }
      }
    }
  }
}

TEST(Packers, Bitsandbytes) {
  Rng rng(4);
  int checked = 0;
  for (int64_t rows = 1; rows <= 40; ++rows) {
    for (const int64_t cols : {32, 64, 96, 128, 192, 320}) {
      for (const int64_t block : {64, 128, 256, 4096}) {
        const int64_t group = bnb_kernel_group(block, cols);
        ASSERT_NE(group, 0);
        const bool half = rng() % 2 == 0;
        const PackedShape shape{.code = CodeKind::kCodebook4,
                                .scale = half ? ScaleKind::kF16 : ScaleKind::kF32,
                                .rows = rows,
                                .cols = cols,
                                .group = group};
        const auto codes = random_bytes(rng, rows * cols / 2);
        std::vector<float> absmax(static_cast<size_t>(ceil_div(rows * cols, block)));
        for (float& a : absmax) a = static_cast<float>(rng() % 1000) * 0.001f;
        std::vector<uint16_t> halves(absmax.size());
        std::transform(absmax.begin(), absmax.end(), halves.begin(), float_to_half);
        const auto scales =
            half ? std::as_bytes(std::span(halves)) : std::as_bytes(std::span(absmax));
        const auto want = build(
            shape,
            [&](int64_t row, int64_t col) {
              const int64_t flat = row * cols + col;
              const auto byte = std::to_integer<uint32_t>(codes[static_cast<size_t>(flat / 2)]);
              return flat % 2 == 0 ? byte >> 4 : byte & 15u;
            },
            [&](int64_t row, int64_t g) {
              return absmax[static_cast<size_t>((row * cols + g * group) / block)];
            },
            [](int64_t, int64_t) { return 0; });
        for (const PackLoops* loops : all_pack_loops()) {
          auto got = dirty(shape);
          for (int64_t tile = 0; tile < shape.num_tiles(); ++tile) {
            pack_bitsandbytes(shape, codes.data() + tile * kTileRows * cols / 2, scales, block,
                              tile, 1, got.data(), *loops);
          }
          expect_same(got, want, shape);
        }
        checked += 1;
      }
    }
  }
  EXPECT_EQ(checked, 40 * 6 * 4);
  EXPECT_EQ(bnb_kernel_group(64, 72), 0);
  EXPECT_EQ(bnb_kernel_group(64, 16), 0);
}

// Every seventh half, what lies just beside it and between it and the next, all with both signs.
TEST(Packers, HalvesAreRoundedToEven) {
  constexpr float kFactor = 4;
  std::vector<float> values;
  for (uint32_t half = 0; half < 0x7bff; half += 7) {
    const float value = half_to_float(static_cast<uint16_t>(half));
    const float between = (value + half_to_float(static_cast<uint16_t>(half + 1))) / 2;
    for (const float v : {value, between, std::nextafter(between, 0.0f),
                          std::nextafter(between, 1e9f), std::nextafter(value, 1e9f)}) {
      values.push_back(v / kFactor);
      values.push_back(-v / kFactor);
    }
  }
  for (const PackLoops* loops : all_pack_loops()) {
    for (const size_t count : {values.size(), size_t{5}, size_t{11}}) {
      std::vector<uint16_t> halves(count + 1, 0xa5a5);
      const float most =
          loops->halve(values.data(), static_cast<int64_t>(count), kFactor, halves.data());
      float want_most = 0;
      for (size_t i = 0; i < count; ++i) {
        want_most = std::max(want_most, std::fabs(values[i] * kFactor));
        ASSERT_EQ(halves[i], float_to_half(values[i] * kFactor)) << loops->name << " " << values[i];
      }
      EXPECT_EQ(most, want_most);
      EXPECT_EQ(halves[count], 0xa5a5) << "past the end";
    }
    const float bad[] = {1.0f, std::nanf(""), 2.0f};
    uint16_t halves[3];
    EXPECT_TRUE(std::isnan(loops->halve(bad, 3, 1.0f, halves)));
  }
}

TEST(Packers, NestedAbsmaxRoundsAfterEachStep) {
  const std::vector<uint8_t> codes = {0, 255, 7};
  std::vector<float> map(256, 0.1f);
  map[255] = 0.3f;
  const std::vector<float> nested = {3.0f, 7.0f};
  std::vector<float> absmax(3);
  expand_nested_absmax(codes, map, nested, 2, 0.05f, absmax);
  volatile float product = 0.3f * 3.0f;
  EXPECT_EQ(absmax[1], product + 0.05f);
  product = 0.1f * 7.0f;
  EXPECT_EQ(absmax[2], product + 0.05f);
}

TEST(Packers, Fp8) {
  Rng rng(5);
  for (int64_t rows = 1; rows <= 40; ++rows) {
    for (const int64_t cols : {1, 7, 16, 33, 128, 200, 264}) {
      for (const auto& [block_rows, block_cols] :
           {std::pair<int64_t, int64_t>{128, 128}, {8, 32}, {1, cols}, {16, 256}}) {
        const PackedShape shape{.code = CodeKind::kFp8,
                                .scale = ScaleKind::kF32,
                                .rows = rows,
                                .cols = cols,
                                .group = kernel_group(block_cols, cols)};
        const int64_t scale_cols = ceil_div(cols, block_cols);
        const auto codes = random_bytes(rng, rows * cols);
        const auto scales =
            random_scales(rng, shape.scale, ceil_div(rows, block_rows) * scale_cols);
        const auto want = build(
            shape,
            [&, cols = cols](int64_t row, int64_t col) {
              return std::to_integer<uint32_t>(codes[static_cast<size_t>(row * cols + col)]);
            },
            [&, block_rows = block_rows, block_cols = block_cols](int64_t row, int64_t g) {
              return scale_at(shape.scale, scales,
                              (row / block_rows) * scale_cols + g * shape.group / block_cols);
            },
            [](int64_t, int64_t) { return 0; });
        Fp8Weights weights{codes.data(), scales.data(), block_rows, block_cols};
        auto got = dirty(shape);
        for (int64_t tile = 0; tile < shape.num_tiles(); ++tile) {
          weights.codes = codes.data() + tile * kTileRows * cols;
          pack_fp8(shape, weights, tile, 1, got.data());
        }
        expect_same(got, want, shape);
      }
    }
  }
}

TEST(Packers, KernelGroups) {
  EXPECT_EQ(kernel_group(128, 2048), 128);
  EXPECT_EQ(kernel_group(32, 2048), 32);
  EXPECT_EQ(kernel_group(256, 2048), 128);
  EXPECT_EQ(kernel_group(-1, 2048), 128);
  EXPECT_EQ(kernel_group(-1, 36), 40);
  EXPECT_EQ(kernel_group(12, 2048), 0);
  for (const int64_t group : {8, 16, 24, 40, 96, 120, 136, 512, 1000}) {
    const int64_t kernel = kernel_group(group, 4096);
    ASSERT_GT(kernel, 0) << group;
    EXPECT_EQ(group % kernel, 0) << group;
    EXPECT_EQ(kernel % 8, 0) << group;
  }
}

}  // namespace
}  // namespace hotset
