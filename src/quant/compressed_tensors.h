// SPDX-License-Identifier: Apache-2.0
// compressed-tensors "pack-quantized": weight_packed u32 [rows, ceil(cols·bits/32)] packs one row's
// inputs low bits first; weight_scale [rows, groups]; weight_zero_point packs outputs, u32
// [ceil(rows·bits/32), groups]. Codes and zeros are stored with the same offset (8 or 128), which
// cancels: w[o,i] = (u − z)·s, z = 8 (128) when symmetric. An optional g_idx gives each input's
// group.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/pack_loops.h"
#include "quant/packed_matrix.h"

namespace hotset {

struct CompressedWeights {
  int bits = 4;  // 4 or 8
  int64_t num_groups = 0;
  const std::byte* packed = nullptr;  // the rows being packed, first row of the tile first
  const std::byte* scales = nullptr;  // [rows, num_groups], all rows of the matrix
  const std::byte* zeros = nullptr;   // u32 [ceil(rows·bits/32), num_groups], all rows; or null
};

[[nodiscard]] uint32_t compressed_zero(const CompressedWeights& weights, int64_t group,
                                       int64_t row);

// Packs tiles first_tile … first_tile+num_tiles−1; weights.packed points at the row first_tile·16.
// block_group and order as for pack_gptq. `dst` is the whole matrix.
void pack_compressed(const PackedShape& shape, const CompressedWeights& weights,
                     std::span<const int32_t> block_group, std::span<const int32_t> order,
                     int64_t first_tile, int64_t num_tiles, std::byte* dst,
                     const PackLoops& loops = pack_loops());

// fp32 of matrix row `row`, whose words are at `packed_row`.
void dequantize_compressed_row(const CompressedWeights& weights, ScaleKind scale,
                               std::span<const int32_t> g_idx, const std::byte* packed_row,
                               int64_t row, std::span<float> out);

}  // namespace hotset
