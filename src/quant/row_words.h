// SPDX-License-Identifier: Apache-2.0
// Packing of formats whose rows are contiguous: a tile's 16 rows of words become steps, group after
// group.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "quant/pack_loops.h"
#include "quant/packed_matrix.h"
#include "quant/tile_layout.h"

namespace hotset {

// Words per step of one lane: 8 columns of 4 bits or 4 columns of 8 bits.
inline int64_t words_per_row(const PackedShape& shape) {
  return shape.padded_cols() * code_bits(shape.code) / 32;
}

// Codes of one tile. `rows`: its first row, words low bits first, rows `stride` bytes apart and as
// long as the columns need; bits of the last word past the last column don't count. Padding lanes
// and columns get code 0.
inline void put_tile_words(const PackedShape& shape, WordOrder order, const std::byte* rows,
                           int64_t stride, int64_t lanes, const PackLoops& loops, std::byte* tile) {
  const int64_t bits = code_bits(shape.code);
  const int64_t group_words = shape.group * bits / 32;
  const int64_t row_words = shape.cols * bits / 32;  // whole ones
  const auto tail_bits = static_cast<uint32_t>(shape.cols * bits % 32);
  for (int64_t g = 0; g < shape.num_groups(); ++g) {
    std::byte* steps = tile + g * shape.group_bytes() + shape.group_header_bytes();
    const std::byte* from = rows + 4 * g * group_words;
    const int64_t words = std::min(group_words, row_words - g * group_words);
    loops.turn_rows(order, from, stride, lanes, words, steps);
    if (words == group_words) continue;
    std::memset(steps + 64 * words, 0, static_cast<size_t>(64 * (group_words - words)));
    if (tail_bits == 0) continue;
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const uint32_t last =
          load_as<uint32_t>(from + lane * stride + 4 * words) & ((1u << tail_bits) - 1);
      loops.turn_rows(order, reinterpret_cast<const std::byte*>(&last), 4, 1, 1,
                      steps + 64 * words + 4 * lane);
    }
  }
}

}  // namespace hotset
