// SPDX-License-Identifier: Apache-2.0
#include "quant/bitsandbytes.h"

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

namespace {

// Of the rows of a tile; Bits: of a scale.
template <typename Bits>
void put_block_scales(const PackedShape& shape, const std::byte* scales, int64_t block,
                      int64_t tile, int64_t lanes, std::byte* base) {
  for (int64_t lane = 0; lane < lanes; ++lane) {
    const int64_t flat = (tile * kTileRows + lane) * shape.cols;
    const std::byte* from = scales + flat / block * int64_t{sizeof(Bits)};
    int64_t left = block - flat % block;  // of the block, a multiple of the group
    std::byte* to = base + lane * int64_t{sizeof(Bits)};
    for (int64_t g = 0; g < shape.num_groups(); ++g, to += shape.group_bytes()) {
      std::memcpy(to, from, sizeof(Bits));
      left -= shape.group;
      if (left > 0) continue;
      from += sizeof(Bits);
      left = block;
    }
  }
}

}  // namespace

void pack_bitsandbytes(const PackedShape& shape, const std::byte* bytes,
                       std::span<const std::byte> scales, int64_t block, int64_t first_tile,
                       int64_t num_tiles, std::byte* dst, const PackLoops& loops) {
  const bool full = shape.scale == ScaleKind::kF32;
  HS_CHECK(shape.code == CodeKind::kCodebook4 && (full || shape.scale == ScaleKind::kF16) &&
               shape.cols % shape.group == 0 && block % shape.group == 0,
           "{} columns in groups of {}, blocks of {}", shape.cols, shape.group, block);
  for (int64_t tile = first_tile; tile < first_tile + num_tiles; ++tile) {
    std::byte* base = dst + tile * shape.tile_bytes();
    const int64_t lanes = tile_lanes(shape, tile);
    if (lanes < kTileRows) std::memset(base, 0, static_cast<size_t>(shape.tile_bytes()));
    put_tile_words(shape, WordOrder::kHighFirst, bytes, shape.cols / 2, lanes, loops, base);
    bytes += lanes * shape.cols / 2;
    const auto put = full ? put_block_scales<uint32_t> : put_block_scales<uint16_t>;
    put(shape, scales.data(), block, tile, lanes, base);
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
