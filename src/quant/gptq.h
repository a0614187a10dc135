// SPDX-License-Identifier: Apache-2.0
// GPTQ: qweight [cols·bits/32, rows] packs inputs of one output into a word, low bits first; scales
// and zeros are per group of inputs. w[o,i] = scales[g,o]·(q[i,o] − z[g,o]) with g = g_idx[i].
//
// One word row of 16 neighbouring outputs is 64 contiguous bytes and, up to the order of nibbles in
// each word, one step of a tile: packing is a copy with a shuffle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "quant/pack_loops.h"
#include "quant/packed_matrix.h"

namespace hotset {

struct GptqWeights {
  int bits = 4;  // 4 or 8
  int64_t num_groups = 0;
  const std::byte* qweight = nullptr;  // u32 [cols·bits/32, rows]
  const std::byte* qzeros = nullptr;   // u32 [num_groups, rows·bits/32]
  const std::byte* scales = nullptr;   // [num_groups, rows] of the packed shape's scale kind
  // 1: what is stored is z − 1 (v1). The subtraction was made on whole words, so a zero of 0
  // borrows from its neighbour, and adding to whole words is what undoes it.
  int zero_offset = 0;
};

// Stable order of inputs by group: order[j] is the input of packed column j.
void sort_by_group(std::span<const int32_t> g_idx, int64_t num_groups, std::span<int32_t> order);

// The group of each packed group of `group` columns under `order` (empty: identity); false when one
// would span two groups, so that the packed form cannot express it.
[[nodiscard]] bool uniform_groups(std::span<const int32_t> g_idx, std::span<const int32_t> order,
                                  int64_t group, std::span<int32_t> block_group);

// Zero of (group, row), offset included.
[[nodiscard]] uint32_t gptq_zero(const GptqWeights& weights, int64_t rows, int64_t group,
                                 int64_t row);
// The first (group·rows + row) whose zero is not `zero`; nullopt when all are.
[[nodiscard]] std::optional<int64_t> find_other_zero(const GptqWeights& weights, int64_t rows,
                                                     uint32_t zero);

// `shape`: kAffine4 or kInt8. block_group: [shape.num_groups()], from uniform_groups. Packs groups
// first_group … first_group+num_groups−1 of every tile of `dst`, the whole matrix. weights.qweight
// points at the first word row of first_group, or, with an `order`, at the whole tensor.
void pack_gptq(const PackedShape& shape, const GptqWeights& weights,
               std::span<const int32_t> block_group, std::span<const int32_t> order,
               int64_t first_group, int64_t num_groups, std::byte* dst,
               const PackLoops& loops = pack_loops());

// fp32 row `row` in the model's column order, for shapes without a packed form.
void dequantize_gptq_row(const GptqWeights& weights, ScaleKind scale, int64_t rows,
                         std::span<const int32_t> g_idx, int64_t row, std::span<float> out);

}  // namespace hotset
