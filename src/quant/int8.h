// SPDX-License-Identifier: Apache-2.0
// 16-bit weights held at 8 bits: one fp16 scale per group of columns (absmax / 127), codes rounded
// to nearest against the scale as it is stored. The one place where packing changes values; it says
// by how much.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/packed_matrix.h"

namespace hotset {

// How far packed values are from the stored ones; sums over elements.
struct RequantLoss {
  double max_error = 0;   // |w' - w|, the largest
  double max_weight = 0;  // |w|, the largest
  double sum_square_error = 0;
  double sum_square_weight = 0;
};

// `shape`: kInt8 with scale kF16 and zero 128 (int8_shape). rows: fp32 [rows of the tiles, cols],
// the first row is row first_tile·16. `dst` is the whole matrix. Adds to `loss`.
void pack_int8(const PackedShape& shape, const float* rows, int64_t first_tile, int64_t num_tiles,
               std::byte* dst, RequantLoss& loss);

}  // namespace hotset
