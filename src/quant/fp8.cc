// SPDX-License-Identifier: Apache-2.0
#include "quant/fp8.h"

#include <algorithm>

#include "base/check.h"
#include "base/checked_math.h"
#include "quant/scale_value.h"
#include "quant/transpose.h"

namespace hotset {

void pack_fp8(const PackedShape& shape, const Fp8Weights& weights, int64_t first_tile,
              int64_t num_tiles, std::byte* dst) {
  HS_CHECK(shape.code == CodeKind::kFp8, "{}", code_kind_name(shape.code));
  const int64_t scale_cols = ceil_div(shape.cols, weights.block_cols);
  const std::byte* rows = weights.codes;
  for (int64_t tile = first_tile; tile < first_tile + num_tiles; ++tile) {
    const int64_t lanes = tile_lanes(shape, tile);
    for (int64_t g = 0; g < shape.num_groups(); ++g) {
      std::byte* block = group_block(shape, dst, tile, g);
      std::memset(block, 0, static_cast<size_t>(shape.group_header_bytes()));
      const int64_t first = g * shape.group;
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const int64_t row = tile * kTileRows + lane;
        const int64_t index = (row / weights.block_rows) * scale_cols + first / weights.block_cols;
        put_scale_bits(shape, block, lane, weights.scales + index * scale_bytes(shape.scale));
      }
      transpose_tile<uint8_t>(rows + first, shape.cols, lanes,
                              std::min(shape.group, shape.cols - first), shape.group,
                              block + shape.group_header_bytes());
    }
    rows += lanes * shape.cols;
  }
}

void dequantize_fp8_row(const Fp8Weights& weights, ScaleKind scale, const std::byte* codes_row,
                        int64_t row, std::span<float> out) {
  const auto cols = static_cast<int64_t>(out.size());
  const int64_t scale_cols = ceil_div(cols, weights.block_cols);
  for (int64_t i = 0; i < cols; ++i) {
    const int64_t index = (row / weights.block_rows) * scale_cols + i / weights.block_cols;
    out[static_cast<size_t>(i)] = e4m3_to_float(static_cast<uint8_t>(codes_row[i])) *
                                  scale_value(scale, weights.scales, index);
  }
}

}  // namespace hotset
