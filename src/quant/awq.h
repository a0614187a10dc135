// SPDX-License-Identifier: Apache-2.0
// AWQ "gemm": qweight u32 [cols, rows/8] packs eight outputs of one input into a word, in the slot
// order 0,2,4,6,1,3,5,7; zeros likewise [groups, rows/8]; scales [groups, rows].
// w[o,i] = scales[i/G,o]·(q[i,o] − z[i/G,o]), no zero offset.
//
// Eight inputs of a word column are an 8×8 block of nibbles; a step of a tile is two such blocks
// turned over their diagonal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/pack_loops.h"
#include "quant/packed_matrix.h"

namespace hotset {

struct AwqWeights {
  int64_t format_group = 0;            // columns per scale
  const std::byte* qweight = nullptr;  // u32 [cols, rows/8]
  const std::byte* qzeros = nullptr;   // u32 [groups, rows/8]
  const std::byte* scales = nullptr;   // [groups, rows] of the packed shape's scale kind
};

[[nodiscard]] uint32_t awq_zero(const AwqWeights& weights, int64_t rows, int64_t group,
                                int64_t row);

// `shape`: kAffine4 with zeros; shape.group divides format_group. rows is a multiple of 8. Packs
// groups first_group … first_group+num_groups−1 of every tile of `dst`, the whole matrix;
// weights.qweight points at the first input of first_group.
void pack_awq(const PackedShape& shape, const AwqWeights& weights, int64_t first_group,
              int64_t num_groups, std::byte* dst, const PackLoops& loops = pack_loops());

void dequantize_awq_row(const AwqWeights& weights, ScaleKind scale, int64_t rows, int64_t row,
                        std::span<float> out);

}  // namespace hotset
