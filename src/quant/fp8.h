// SPDX-License-Identifier: Apache-2.0
// FP8 with block scales: weight E4M3 [rows, cols], one scale per block of block_rows × block_cols
// (128×128 in the public releases; 1×cols is one scale a row). w = e4m3·scale; the tensor's name
// weight_scale_inv notwithstanding, one multiplies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/packed_matrix.h"

namespace hotset {

struct Fp8Weights {
  const std::byte* codes = nullptr;   // the rows being packed, first row of the tile first
  const std::byte* scales = nullptr;  // [ceil(rows/block_rows), ceil(cols/block_cols)]
  int64_t block_rows = 128;
  int64_t block_cols = 128;
};

// `shape`: kFp8; shape.group divides block_cols, or block_cols >= cols.
void pack_fp8(const PackedShape& shape, const Fp8Weights& weights, int64_t first_tile,
              int64_t num_tiles, std::byte* dst);

// fp32 of matrix row `row`, whose codes are at `codes_row`.
void dequantize_fp8_row(const Fp8Weights& weights, ScaleKind scale, const std::byte* codes_row,
                        int64_t row, std::span<float> out);

}  // namespace hotset
