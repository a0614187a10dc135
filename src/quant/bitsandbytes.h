// SPDX-License-Identifier: Apache-2.0
// bitsandbytes 4-bit: codes lie flat over the whole matrix, two a byte, the first in the HIGH
// nibble; one absmax per flat block (64 by default), itself stored in 8 bits when double-quantised.
// w[f] = quant_map[code]·absmax[f / block].
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "quant/pack_loops.h"
#include "quant/packed_matrix.h"

namespace hotset {

// absmax of a double-quantised matrix: nested_map[code[b]]·nested_absmax[b / nested_block] +
// offset, rounded after each operation as the library does it.
void expand_nested_absmax(std::span<const uint8_t> codes, std::span<const float> nested_map,
                          std::span<const float> nested_absmax, int64_t nested_block, float offset,
                          std::span<float> absmax);

// Columns per packed group so that every flat block is whole groups; 0: none fits.
[[nodiscard]] int64_t bnb_kernel_group(int64_t block, int64_t cols);

// Scales as halves are kBnbHalfFactor times the absmax, and the codebook's entries that much
// smaller. From 2^-20 on they have eleven digits, more than any bf16 weight; what double
// quantisation adds to them is rounded.
inline constexpr float kBnbHalfFactor = 64.0f;
inline constexpr float kLargestBnbHalf = 65504.0f / kBnbHalfFactor;

// `shape`: kCodebook4, scale kF32, or kF16 with the factor in it. Packs tiles first_tile …; `bytes`
// points at row first_tile·16 (cols is even). scales: of the whole matrix, as `shape` has them.
void pack_bitsandbytes(const PackedShape& shape, const std::byte* bytes,
                       std::span<const std::byte> scales, int64_t block, int64_t first_tile,
                       int64_t num_tiles, std::byte* dst, const PackLoops& loops = pack_loops());

// fp32 of flat elements first … first+out.size()−1; `bytes`: of the whole matrix.
void dequantize_bitsandbytes(const std::byte* bytes, std::span<const float> absmax,
                             std::span<const float> codebook, int64_t block, int64_t first,
                             std::span<float> out);

}  // namespace hotset
