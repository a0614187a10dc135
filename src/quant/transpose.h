// SPDX-License-Identifier: Apache-2.0
// Rows to columns for the kinds whose tile holds, column after column, one value of each of its 16
// rows. Blocks of 16×8 go through registers: the compiler turns the fixed-size loops into shuffles
// or at least keeps both sides within a few cache lines.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "quant/packed_matrix.h"

namespace hotset {

// `from`: `lanes` rows of `cols` values, `stride` values apart. `to`: [padded_cols][16] values,
// zero where there is no row or column.
template <typename T>
void transpose_tile(const std::byte* from, int64_t stride, int64_t lanes, int64_t cols,
                    int64_t padded_cols, std::byte* to);

}  // namespace hotset
