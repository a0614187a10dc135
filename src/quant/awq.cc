// SPDX-License-Identifier: Apache-2.0
// Whole blocks go through PackLoops. What is left over takes the same three moves in plain 32-bit
// arithmetic: pair inputs j and j+4 into bytes (even slots and odd slots apart), then transpose 4×4
// bytes by halves.
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

// One step of one tile; `from` is the line of its first input.
void put_step(const PackedShape& shape, const std::byte* from, int64_t tile, int64_t cols,
              std::byte* codes) {
  const int64_t word_cols = shape.rows / 8;
  const int64_t first = tile * 2;
  uint32_t step[kTileRows] = {};
  for (int64_t half = 0; half < 2 && first + half < word_cols; ++half) {
    uint32_t words[8] = {};
    for (int64_t j = 0; j < std::min<int64_t>(8, cols); ++j) {
      words[j] = word_at(from, j * word_cols + first + half);
    }
    turn_block(words, step + 8 * half);
  }
  std::memcpy(codes, step, sizeof(step));
}

// Four nibbles in the even bytes: slots 0 … 3 of a word hold the even outputs, 4 … 7 the odd ones.
uint64_t spaced_nibbles(uint32_t half) {
  uint64_t x = half;
  x = (x | (x << 24)) & 0x000000ff000000ffu;
  return (x | (x << 12)) & 0x000f000f000f000fu;
}

void put_header(const PackedShape& shape, const AwqWeights& weights, int64_t group, int64_t tile,
                std::byte* block) {
  const int64_t size = scale_bytes(shape.scale);
  const int64_t row0 = tile * kTileRows;
  const int64_t lanes = tile_lanes(shape, tile);
  if (lanes < kTileRows) std::memset(block, 0, static_cast<size_t>(shape.group_header_bytes()));
  put_scales(shape, block, lanes, weights.scales + (group * shape.rows + row0) * size);
  std::byte* zeros = block + kTileRows * size;
  for (int64_t w = 0; w < lanes / 8; ++w) {
    const uint32_t word = word_at(weights.qzeros, (group * shape.rows + row0) / 8 + w);
    const uint64_t bytes = spaced_nibbles(word & 0xffffu) | (spaced_nibbles(word >> 16) << 8);
    std::memcpy(zeros + 8 * w, &bytes, sizeof(bytes));
  }
}

// The codes of group g: eight tiles at a time while they and the inputs are whole.
void put_codes(const PackedShape& shape, const std::byte* lines, int64_t g, const PackLoops& loops,
               std::byte* dst) {
  const int64_t stride = shape.rows / 2;
  const int64_t cols = std::min(shape.group, shape.cols - g * shape.group);
  const int64_t whole_tiles = shape.rows / kTileRows / kAwqTiles * kAwqTiles;
  const auto codes_of = [&](int64_t tile) {
    return group_block(shape, dst, tile, g) + shape.group_header_bytes();
  };
  for (int64_t tile = 0; tile < whole_tiles; tile += kAwqTiles) {
    loops.turn_awq(lines + 8 * tile, stride, cols / 8, codes_of(tile), shape.tile_bytes());
  }
  for (int64_t tile = 0; tile < shape.num_tiles(); ++tile) {
    std::byte* codes = codes_of(tile);
    for (int64_t col = tile < whole_tiles ? cols / 8 * 8 : 0; col < shape.group; col += 8) {
      put_step(shape, lines + col * stride, tile, cols - col, codes + 8 * col);
    }
  }
}

}  // namespace

uint32_t awq_zero(const AwqWeights& weights, int64_t rows, int64_t group, int64_t row) {
  return nibble_at(weights.qzeros, rows, group, row);
}

void pack_awq(const PackedShape& shape, const AwqWeights& weights, int64_t first_group,
              int64_t num_groups, std::byte* dst, const PackLoops& loops) {
  HS_CHECK(shape.code == CodeKind::kAffine4 && shape.has_zeros && shape.rows % 8 == 0,
           "rows {} as {}", shape.rows, code_kind_name(shape.code));
  const std::byte* lines = weights.qweight;
  for (int64_t g = first_group; g < first_group + num_groups; ++g) {
    const int64_t format_group = g * shape.group / weights.format_group;
    for (int64_t tile = 0; tile < shape.num_tiles(); ++tile) {
      put_header(shape, weights, format_group, tile, group_block(shape, dst, tile, g));
    }
    put_codes(shape, lines, g, loops, dst);
    lines += shape.group * shape.rows / 2;
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
