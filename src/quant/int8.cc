// SPDX-License-Identifier: Apache-2.0
#include "quant/int8.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/float16.h"
#include "quant/tile_layout.h"

namespace hotset {
namespace {

// `count` values of a kind as fp32, and zeros up to `padded`.
void widen(CodeKind stored, const std::byte* from, int64_t count, int64_t padded,
           const PackLoops& loops, float* to) {
  switch (stored) {
    case CodeKind::kBF16:
      loops.widen_bf16(from, count, to);
      break;
    case CodeKind::kF16:
      loops.widen_f16(from, count, to);
      break;
    default:
      std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
      break;
  }
  std::fill(to + count, to + padded, 0.0f);
}

// One group of one row: codes as bytes, and the scale's stored bits.
uint16_t quantize_group(std::span<const float> values, const PackLoops& loops, uint8_t* codes,
                        Int8Sums& sums, RequantLoss& loss) {
  const auto count = static_cast<int64_t>(values.size());
  const float largest = loops.largest(values.data(), count);
  const uint16_t scale_bits = float_to_half(largest / 127.0f);
  const float scale = half_to_float(scale_bits);
  loops.quantize(values.data(), count, scale, scale > 0 ? 1.0f / scale : 0.0f, codes, sums);
  if (largest > loss.max_weight || std::isnan(largest)) loss.max_weight = largest;  // NaN stays
  return scale_bits;
}

// Sums are kept in fp32 for the length of one group of one tile, then added up in double, in order.
void add_sums(const Int8Sums& sums, RequantLoss& loss) {
  for (int i = 0; i < 16; ++i) {
    loss.max_error = std::max(loss.max_error, double{sums.max_error[i]});
    loss.sum_square_error += sums.square_error[i];
    loss.sum_square_weight += sums.square_weight[i];
  }
}

}  // namespace

bool RequantLoss::representable() const {
  return max_weight <= kLargestInt8Weight;
}

void pack_int8(const PackedShape& shape, CodeKind stored, const std::byte* rows, int64_t first_tile,
               int64_t num_tiles, std::byte* dst, RequantLoss& loss, const PackLoops& loops) {
  HS_CHECK(shape.code == CodeKind::kInt8 && shape.scale == ScaleKind::kF16 && !shape.has_zeros,
           "{}", code_kind_name(shape.code));
  const int64_t value_bytes = code_bits(stored) / 8;
  const int64_t padded = (shape.group + 15) / 16 * 16;
  std::vector<float> values(static_cast<size_t>(padded));
  std::vector<uint8_t> codes(static_cast<size_t>(padded * kTileRows));
  for (int64_t tile = first_tile; tile < first_tile + num_tiles; ++tile) {
    const int64_t lanes = tile_lanes(shape, tile);
    if (lanes < kTileRows) std::fill(codes.begin(), codes.end(), uint8_t{0});  // padding rows
    for (int64_t g = 0; g < shape.num_groups(); ++g) {
      std::byte* block = group_block(shape, dst, tile, g);
      const int64_t first = g * shape.group;
      const int64_t count = std::min(shape.group, shape.cols - first);
      uint16_t scales[kTileRows] = {};
      Int8Sums sums;
      for (int64_t lane = 0; lane < lanes; ++lane) {
        widen(stored, rows + (lane * shape.cols + first) * value_bytes, count, padded, loops,
              values.data());
        scales[lane] = quantize_group(values, loops, codes.data() + lane * padded, sums, loss);
      }
      add_sums(sums, loss);
      std::memcpy(block, scales, sizeof(scales));
      loops.turn_rows(WordOrder::kAsStored, std::as_bytes(std::span(codes)).data(), padded,
                      kTileRows, shape.group / 4, block + shape.group_header_bytes());
    }
    rows += lanes * shape.cols * value_bytes;
  }
}

}  // namespace hotset
