// SPDX-License-Identifier: Apache-2.0
// Small pieces that the packers share: where a group block begins, raw scales and zeros of one
// lane, and the order of nibbles within a step (see packed_matrix.h for the layout).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "quant/packed_matrix.h"

namespace hotset {

inline std::byte* group_block(const PackedShape& shape, std::byte* data, int64_t tile,
                              int64_t group) {
  return data + tile * shape.tile_bytes() + group * shape.group_bytes();
}

// Lanes of a tile that are rows of the matrix; the others are padding.
inline int64_t tile_lanes(const PackedShape& shape, int64_t tile) {
  const int64_t left = shape.rows - tile * kTileRows;
  return left < kTileRows ? left : kTileRows;
}

template <typename T>
T load_as(const void* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

// `bits` are the stored bits of the scale: 2 or 4 bytes, copied as they are.
inline void put_scale_bits(const PackedShape& shape, std::byte* block, int64_t lane,
                           const std::byte* bits) {
  if (shape.scale == ScaleKind::kF32) {
    std::memcpy(block + 4 * lane, bits, 4);
  } else if (shape.scale != ScaleKind::kNone) {
    std::memcpy(block + 2 * lane, bits, 2);
  }
}

inline void put_zero(const PackedShape& shape, std::byte* block, int64_t lane, uint32_t zero) {
  block[kTileRows * scale_bytes(shape.scale) + lane] = static_cast<std::byte>(zero);
}

// The scales of a tile's rows where they lie together; 16 of them are the usual case.
inline void put_scales(const PackedShape& shape, std::byte* block, int64_t lanes,
                       const std::byte* scales) {
  if (lanes == kTileRows && scale_bytes(shape.scale) == 2) {
    std::memcpy(block, scales, 2 * kTileRows);
  } else {
    std::memcpy(block, scales, static_cast<size_t>(lanes * scale_bytes(shape.scale)));
  }
}

// Nibbles c0…c7, low first, become bytes c0|c4<<4, c1|c5<<4, c2|c6<<4, c3|c7<<4. Plain arithmetic
// on words, so that a loop over it is vectorised for any target.
inline uint32_t step_word(uint32_t nibbles) {
  uint32_t low = nibbles & 0xffffu;
  uint32_t high = nibbles >> 16;
  low = (low | (low << 8)) & 0x00ff00ffu;
  high = (high | (high << 8)) & 0x00ff00ffu;
  low = (low | (low << 4)) & 0x0f0f0f0fu;
  high = (high | (high << 4)) & 0x0f0f0f0fu;
  return low | (high << 4);
}

}  // namespace hotset
