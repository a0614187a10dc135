// SPDX-License-Identifier: Apache-2.0
// The nibble transpose in three moves of plain 32-bit arithmetic: pair inputs j and j+4 into bytes
// (even slots and odd slots apart), then transpose 4×4 bytes by halves.
#include "quant/awq.h"

#include <algorithm>

#include "base/check.h"
#include "quant/scale_value.h"
#include "quant/tile_layout.h"

namespace hotset {
namespace {

constexpr int kSlotOfChannel[8] = {0, 4, 1, 5, 2, 6, 3, 7};
// Channels found in the even slots 0,2,4,6 and in the odd slots 1,3,5,7.
constexpr int kEvenChannels[4] = {0, 4, 1, 5};
constexpr int kOddChannels[4] = {2, 6, 3, 7};

uint32_t word_at(const std::byte* base, int64_t index) {
  return load_as<uint32_t>(base + 4 * index);
}

uint32_t nibble_at(const std::byte* base, int64_t rows, int64_t line, int64_t row) {
  return (word_at(base, line * (rows / 8) + row / 8) >> (4 * kSlotOfChannel[row % 8])) & 15u;
}

// Bytes of a[0…3]: out word m = (a0[m], a1[m], a2[m], a3[m]), stored at the lane of its channel.
void put_transposed(const uint32_t a[4], const int channels[4], uint32_t* lanes) {
  const uint32_t t0 = (a[0] & 0xffffu) | (a[2] << 16);
  const uint32_t t1 = (a[1] & 0xffffu) | (a[3] << 16);
  const uint32_t t2 = (a[0] >> 16) | (a[2] & 0xffff0000u);
  const uint32_t t3 = (a[1] >> 16) | (a[3] & 0xffff0000u);
  lanes[channels[0]] = (t0 & 0x00ff00ffu) | ((t1 & 0x00ff00ffu) << 8);
  lanes[channels[1]] = ((t0 >> 8) & 0x00ff00ffu) | (t1 & 0xff00ff00u);
  lanes[channels[2]] = (t2 & 0x00ff00ffu) | ((t3 & 0x00ff00ffu) << 8);
  lanes[channels[3]] = ((t2 >> 8) & 0x00ff00ffu) | (t3 & 0xff00ff00u);
}

// Words of eight inputs (one word column) to the step words of its eight outputs.
void turn_block(const uint32_t words[8], uint32_t* lanes) {
  uint32_t even[4];
  uint32_t odd[4];
  for (int j = 0; j < 4; ++j) {
    even[j] = (words[j] & 0x0f0f0f0fu) | ((words[j + 4] & 0x0f0f0f0fu) << 4);
    odd[j] = ((words[j] >> 4) & 0x0f0f0f0fu) | (words[j + 4] & 0xf0f0f0f0u);
  }
  put_transposed(even, kEvenChannels, lanes);
  put_transposed(odd, kOddChannels, lanes);
}

void put_step(const PackedShape& shape, const AwqWeights& weights, int64_t tile, int64_t col0,
              std::byte* codes) {
  const int64_t word_cols = shape.rows / 8;
  const int64_t first = tile * 2;
  const int64_t cols = std::min<int64_t>(8, shape.cols - col0);
  uint32_t step[kTileRows] = {};
  for (int64_t half = 0; half < 2 && first + half < word_cols; ++half) {
    uint32_t words[8] = {};
    for (int64_t j = 0; j < cols; ++j) {
      words[j] = word_at(weights.qweight, (col0 + j) * word_cols + first + half);
    }
    turn_block(words, step + 8 * half);
  }
  std::memcpy(codes, step, sizeof(step));
}

}  // namespace

uint32_t awq_zero(const AwqWeights& weights, int64_t rows, int64_t group, int64_t row) {
  return nibble_at(weights.qzeros, rows, group, row);
}

void pack_awq(const PackedShape& shape, const AwqWeights& weights, std::byte* dst) {
  HS_CHECK(shape.code == CodeKind::kAffine4 && shape.has_zeros && shape.rows % 8 == 0,
           "rows {} as {}", shape.rows, code_kind_name(shape.code));
  const int64_t size = scale_bytes(shape.scale);
  for (int64_t tile = 0; tile < shape.num_tiles(); ++tile) {
    const int64_t row0 = tile * kTileRows;
    const int64_t lanes = tile_lanes(shape, tile);
    for (int64_t g = 0; g < shape.num_groups(); ++g) {
      std::byte* block = group_block(shape, dst, tile, g);
      const int64_t format_group = g * shape.group / weights.format_group;
      std::memset(block, 0, static_cast<size_t>(shape.group_header_bytes()));
      std::memcpy(block, weights.scales + (format_group * shape.rows + row0) * size,
                  static_cast<size_t>(lanes * size));
      for (int64_t lane = 0; lane < lanes; ++lane) {
        put_zero(shape, block, lane, awq_zero(weights, shape.rows, format_group, row0 + lane));
      }
      std::byte* codes = block + shape.group_header_bytes();
      for (int64_t col = 0; col < shape.group; col += 8, codes += 4 * kTileRows) {
        const int64_t col0 = g * shape.group + col;
        if (col0 < shape.cols) {
          put_step(shape, weights, tile, col0, codes);
        } else {
          std::memset(codes, 0, 4 * kTileRows);
        }
      }
    }
  }
}

void dequantize_awq_row(const AwqWeights& weights, ScaleKind scale, int64_t rows, int64_t row,
                        std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const auto col = static_cast<int64_t>(i);
    const int64_t group = col / weights.format_group;
    const auto code = static_cast<float>(nibble_at(weights.qweight, rows, col, row));
    const auto zero = static_cast<float>(awq_zero(weights, rows, group, row));
    out[i] = (code - zero) * scale_value(scale, weights.scales, group * rows + row);
  }
}

}  // namespace hotset
