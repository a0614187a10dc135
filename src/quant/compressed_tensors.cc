// SPDX-License-Identifier: Apache-2.0
// A tile's rows are turned into steps; permuted inputs are collected code by code first.
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

// One row's words with permuted inputs, collected code by code.
void collect_words(const PackedShape& shape, const std::byte* row, int bits,
                   std::span<const int32_t> order, std::span<uint32_t> words) {
  std::fill(words.begin(), words.end(), 0u);
  const int64_t per_word = 32 / bits;
  for (int64_t j = 0; j < shape.cols; ++j) {
    words[static_cast<size_t>(j / per_word)] |= code_at(row, bits, order[static_cast<size_t>(j)])
                                                << (bits * (j % per_word));
  }
}

void put_headers(const PackedShape& shape, const CompressedWeights& weights,
                 std::span<const int32_t> block_group, int64_t tile, std::byte* base) {
  const int64_t size = scale_bytes(shape.scale);
  for (int64_t lane = 0; lane < tile_lanes(shape, tile); ++lane) {
    const int64_t row = tile * kTileRows + lane;
    const std::byte* scales = weights.scales + row * weights.num_groups * size;
    std::byte* block = base;
    for (const int32_t group : block_group) {
      put_scale_bits(shape, block, lane, scales + group * size);
      if (shape.has_zeros) put_zero(shape, block, lane, compressed_zero(weights, group, row));
      block += shape.group_bytes();
    }
  }
}

}  // namespace

uint32_t compressed_zero(const CompressedWeights& weights, int64_t group, int64_t row) {
  if (weights.zeros == nullptr) return 1u << (weights.bits - 1);
  const int64_t word = row * weights.bits / 32 * weights.num_groups + group;
  return (load_as<uint32_t>(weights.zeros + 4 * word) >> (row * weights.bits % 32)) &
         ((1u << weights.bits) - 1);
}

void pack_compressed(const PackedShape& shape, const CompressedWeights& weights,
                     std::span<const int32_t> block_group, std::span<const int32_t> order,
                     int64_t first_tile, int64_t num_tiles, std::byte* dst,
                     const PackLoops& loops) {
  HS_CHECK(code_bits(shape.code) == weights.bits, "{} bits for {}", weights.bits,
           code_kind_name(shape.code));
  const WordOrder word_order = weights.bits == 4 ? WordOrder::kLowFirst : WordOrder::kAsStored;
  const int64_t row_words = ceil_div(shape.cols * weights.bits, 32);
  std::vector<uint32_t> collected(static_cast<size_t>(order.empty() ? 0 : row_words * kTileRows));
  const std::byte* rows = weights.packed;
  for (int64_t tile = first_tile; tile < first_tile + num_tiles; ++tile) {
    std::byte* base = dst + tile * shape.tile_bytes();
    const int64_t lanes = tile_lanes(shape, tile);
    if (lanes < kTileRows) std::memset(base, 0, static_cast<size_t>(shape.tile_bytes()));
    for (int64_t lane = 0; !order.empty() && lane < lanes; ++lane) {
      collect_words(shape, rows + lane * 4 * row_words, weights.bits, order,
                    std::span(collected).subspan(static_cast<size_t>(lane * row_words),
                                                 static_cast<size_t>(row_words)));
    }
    const std::byte* words = order.empty() ? rows : std::as_bytes(std::span(collected)).data();
    put_tile_words(shape, word_order, words, 4 * row_words, lanes, loops, base);
    put_headers(shape, weights, block_group, tile, base);
    rows += lanes * 4 * row_words;
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
