// SPDX-License-Identifier: Apache-2.0
// 16-bit weights held at 8 bits: one fp16 scale per group of columns (absmax / 127), codes rounded
// to nearest against the scale as it is stored. The one place where packing changes values; it says
// by how much.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/pack_loops.h"
#include "quant/packed_matrix.h"

namespace hotset {

// Beyond it a scale would be infinite at 16 bits.
inline constexpr double kLargestInt8Weight = 65504.0 * 127.0;

// How far packed values are from the stored ones; sums over elements.
struct RequantLoss {
  double max_error = 0;   // |w' - w|, the largest
  double max_weight = 0;  // |w|, the largest
  double sum_square_error = 0;
  double sum_square_weight = 0;

  // False when a weight was NaN, infinite or above kLargestInt8Weight: what was packed is void.
  [[nodiscard]] bool representable() const;
};

// `shape`: kInt8 with scale kF16 and zero 128 (int8_shape). rows: [rows of the tiles, cols] of
// kBF16, kF16 or kF32, as `stored` says; the first row is row first_tile·16. `dst` is the whole
// matrix. Adds to `loss`, the same whatever the machine.
void pack_int8(const PackedShape& shape, CodeKind stored, const std::byte* rows, int64_t first_tile,
               int64_t num_tiles, std::byte* dst, RequantLoss& loss,
               const PackLoops& loops = pack_loops());

}  // namespace hotset
