// SPDX-License-Identifier: Apache-2.0
// Packing of formats whose rows are contiguous: one row's words, in step order, go to one lane of
// a tile, 64 bytes apart.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quant/packed_matrix.h"
#include "quant/tile_layout.h"

namespace hotset {

// Words per step of one lane: 8 columns of 4 bits or 4 columns of 8 bits.
inline int64_t words_per_row(const PackedShape& shape) {
  return shape.padded_cols() * code_bits(shape.code) / 32;
}

// words: [words_per_row(shape)] in step order (step_word applied for 4 bits).
inline void put_lane_words(const PackedShape& shape, std::span<const uint32_t> words, int64_t lane,
                           std::byte* tile) {
  const int64_t group_words = shape.group * code_bits(shape.code) / 32;
  const uint32_t* from = words.data();
  for (int64_t g = 0; g < shape.num_groups(); ++g) {
    std::byte* to = tile + g * shape.group_bytes() + shape.group_header_bytes() + 4 * lane;
    for (int64_t s = 0; s < group_words; ++s, to += 4 * kTileRows) std::memcpy(to, from++, 4);
  }
}

}  // namespace hotset
