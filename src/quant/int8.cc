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

PackLoops::Widen widen_of(CodeKind stored, const PackLoops& loops) {
  if (stored == CodeKind::kBF16) return loops.widen_bf16;
  return stored == CodeKind::kF16 ? loops.widen_f16 : loops.widen_f32;
}

// Sums are kept in fp32 for the length of one group of one tile, then added up in double, in order.
void add_loss(const float (&largest)[kTileRows], const Int8Sums& sums, RequantLoss& loss) {
  for (int i = 0; i < kTileRows; ++i) {
    if (largest[i] > loss.max_weight || std::isnan(largest[i])) {
      loss.max_weight = largest[i];  // a NaN stays
    }
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
  const PackLoops::Widen widen = widen_of(stored, loops);
  const int64_t value_bytes = code_bits(stored) / 8;
  const int64_t padded = (shape.group + 15) / 16 * 16;
  std::vector<float> values(static_cast<size_t>(padded * kTileRows));
  std::vector<uint8_t> codes(static_cast<size_t>(padded * kTileRows));
  for (int64_t tile = first_tile; tile < first_tile + num_tiles; ++tile) {
    const int64_t lanes = tile_lanes(shape, tile);
    if (lanes < kTileRows) std::fill(codes.begin(), codes.end(), uint8_t{0});  // padding rows
    for (int64_t g = 0; g < shape.num_groups(); ++g) {
      std::byte* block = group_block(shape, dst, tile, g);
      const int64_t first = g * shape.group;
      const int64_t count = std::min(shape.group, shape.cols - first);
      float largest[kTileRows] = {};
      for (int64_t lane = 0; lane < lanes; ++lane) {
        largest[lane] = widen(rows + (lane * shape.cols + first) * value_bytes, count, padded,
                              values.data() + lane * padded);
      }
      uint16_t scales[kTileRows] = {};
      Int8Sums sums;
      for (int64_t lane = 0; lane < lanes; ++lane) {
        scales[lane] = float_to_half(largest[lane] / 127.0f);
        const float scale = half_to_float(scales[lane]);
        loops.quantize(values.data() + lane * padded, padded, scale,
                       scale > 0 ? 1.0f / scale : 0.0f, codes.data() + lane * padded, sums);
      }
      add_loss(largest, sums, loss);
      std::memcpy(block, scales, sizeof(scales));
      loops.turn_rows(WordOrder::kAsStored, std::as_bytes(std::span(codes)).data(), padded,
                      kTileRows, shape.group / 4, block + shape.group_header_bytes());
    }
    rows += lanes * shape.cols * value_bytes;
  }
}

}  // namespace hotset
