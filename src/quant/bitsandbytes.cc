// SPDX-License-Identifier: Apache-2.0
#include "quant/bitsandbytes.h"

#include <vector>

#include "base/check.h"
#include "base/checked_math.h"
#include "quant/row_words.h"

namespace hotset {

void expand_nested_absmax(std::span<const uint8_t> codes, std::span<const float> nested_map,
                          std::span<const float> nested_absmax, int64_t nested_block, float offset,
                          std::span<float> absmax) {
  for (size_t b = 0; b < codes.size(); ++b) {
    const float scaled =
        nested_map[codes[b]] * nested_absmax[b / static_cast<size_t>(nested_block)];
    absmax[b] = scaled + offset;
  }
}

int64_t bnb_kernel_group(int64_t block, int64_t cols) {
  for (const int64_t group : {int64_t{128}, int64_t{64}, int64_t{32}}) {
    if (block % group == 0 && cols % group == 0) return group;
  }
  return 0;
}

void pack_bitsandbytes(const PackedShape& shape, const std::byte* bytes,
                       std::span<const float> absmax, int64_t block, int64_t first_tile,
                       int64_t num_tiles, std::byte* dst) {
  HS_CHECK(shape.code == CodeKind::kCodebook4 && shape.scale == ScaleKind::kF32 &&
               shape.cols % shape.group == 0,
           "{} columns in groups of {}", shape.cols, shape.group);
  std::vector<uint32_t> words(static_cast<size_t>(words_per_row(shape)));
  for (int64_t tile = first_tile; tile < first_tile + num_tiles; ++tile) {
    std::byte* base = dst + tile * shape.tile_bytes();
    const int64_t lanes = tile_lanes(shape, tile);
    if (lanes < kTileRows) std::memset(base, 0, static_cast<size_t>(shape.tile_bytes()));
    for (int64_t lane = 0; lane < lanes; ++lane, bytes += shape.cols / 2) {
      std::memcpy(words.data(), bytes, static_cast<size_t>(shape.cols / 2));
      for (uint32_t& word : words) {  // high nibble first → low nibble first → step order
        word = step_word(((word & 0x0f0f0f0fu) << 4) | ((word >> 4) & 0x0f0f0f0fu));
      }
      put_lane_words(shape, words, lane, base);
      const int64_t flat = (tile * kTileRows + lane) * shape.cols;
      for (int64_t g = 0; g < shape.num_groups(); ++g) {
        const float scale = absmax[static_cast<size_t>((flat + g * shape.group) / block)];
        std::memcpy(base + g * shape.group_bytes() + 4 * lane, &scale, sizeof(scale));
      }
    }
  }
}

void dequantize_bitsandbytes(const std::byte* bytes, std::span<const float> absmax,
                             std::span<const float> codebook, int64_t block, int64_t first,
                             std::span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t flat = first + static_cast<int64_t>(i);
    const auto byte = static_cast<uint32_t>(bytes[flat / 2]);
    const uint32_t code = flat % 2 == 0 ? byte >> 4 : byte & 15u;
    out[i] = codebook[code] * absmax[static_cast<size_t>(flat / block)];
  }
}

}  // namespace hotset
