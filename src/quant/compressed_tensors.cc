// SPDX-License-Identifier: Apache-2.0
// Row after row: shuffle the words in a small buffer (vectorised), then lay them down one lane of
// the tile. Permuted inputs are collected code by code first.
#include "quant/compressed_tensors.h"

#include <vector>

#include "base/check.h"
#include "base/checked_math.h"
#include "quant/row_words.h"
#include "quant/scale_value.h"

namespace hotset {
namespace {

uint32_t code_at(const std::byte* row, int bits, int64_t col) {
  const int64_t per_word = 32 / bits;
  const auto word = load_as<uint32_t>(row + 4 * (col / per_word));
  return (word >> (bits * (col % per_word))) & ((1u << bits) - 1);
}

// One row's words in packed column order, padded with zero codes.
void collect_words(const PackedShape& shape, const std::byte* row, int bits,
                   std::span<const int32_t> order, std::vector<uint32_t>& words) {
  std::fill(words.begin(), words.end(), 0u);
  if (order.empty()) {
    std::memcpy(words.data(), row, static_cast<size_t>(4 * ceil_div(shape.cols * bits, 32)));
    const int64_t tail = shape.cols * bits % 32;  // padding bits of the file are not ours
    if (tail != 0) words[static_cast<size_t>(shape.cols * bits / 32)] &= (1u << tail) - 1;
    return;
  }
  const int64_t per_word = 32 / bits;
  for (int64_t j = 0; j < shape.cols; ++j) {
    words[static_cast<size_t>(j / per_word)] |= code_at(row, bits, order[static_cast<size_t>(j)])
                                                << (bits * (j % per_word));
  }
}

}  // namespace

uint32_t compressed_zero(const CompressedWeights& weights, int64_t group, int64_t row) {
  if (weights.zeros == nullptr) return 1u << (weights.bits - 1);
  const int64_t per_word = 32 / weights.bits;
  const int64_t word = (row / per_word) * weights.num_groups + group;
  return (load_as<uint32_t>(weights.zeros + 4 * word) >> (weights.bits * (row % per_word))) &
         ((1u << weights.bits) - 1);
}

void pack_compressed(const PackedShape& shape, const CompressedWeights& weights,
                     std::span<const int32_t> block_group, std::span<const int32_t> order,
                     int64_t first_tile, int64_t num_tiles, std::byte* dst) {
  HS_CHECK(code_bits(shape.code) == weights.bits, "{} bits for {}", weights.bits,
           code_kind_name(shape.code));
  std::vector<uint32_t> words(static_cast<size_t>(words_per_row(shape)));
  const int64_t row_bytes = 4 * ceil_div(shape.cols * weights.bits, 32);
  const int64_t size = scale_bytes(shape.scale);
  const std::byte* row_words = weights.packed;
  for (int64_t tile = first_tile; tile < first_tile + num_tiles; ++tile) {
    std::byte* base = dst + tile * shape.tile_bytes();
    const int64_t lanes = tile_lanes(shape, tile);
    if (lanes < kTileRows) std::memset(base, 0, static_cast<size_t>(shape.tile_bytes()));
    for (int64_t lane = 0; lane < lanes; ++lane, row_words += row_bytes) {
      const int64_t row = tile * kTileRows + lane;
      collect_words(shape, row_words, weights.bits, order, words);
      if (weights.bits == 4) {
        for (uint32_t& word : words) word = step_word(word);
      }
      put_lane_words(shape, words, lane, base);
      for (int64_t g = 0; g < shape.num_groups(); ++g) {
        const int64_t group = block_group[static_cast<size_t>(g)];
        std::byte* block = base + g * shape.group_bytes();
        put_scale_bits(shape, block, lane,
                       weights.scales + (row * weights.num_groups + group) * size);
        if (shape.has_zeros) put_zero(shape, block, lane, compressed_zero(weights, group, row));
      }
    }
  }
}

void dequantize_compressed_row(const CompressedWeights& weights, ScaleKind scale,
                               std::span<const int32_t> g_idx, const std::byte* packed_row,
                               int64_t row, std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t group = g_idx[i];
    const auto code =
        static_cast<float>(code_at(packed_row, weights.bits, static_cast<int64_t>(i)));
    const auto zero = static_cast<float>(compressed_zero(weights, group, row));
    out[i] = (code - zero) * scale_value(scale, weights.scales, row * weights.num_groups + group);
  }
}

}  // namespace hotset
