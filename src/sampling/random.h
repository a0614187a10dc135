// SPDX-License-Identifier: Apache-2.0
// The random numbers of sampling: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy
// as 1, 2, 3", 2011). It is a function, not a generator: the number of draw i of a request depends
// on (seed, i) only, so the same seed gives the same text whatever ran before or beside it.
#pragma once

#include <array>
#include <cstdint>

namespace hotset {

// Ten rounds over a 128-bit counter with a 64-bit key.
[[nodiscard]] std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter,
                                                 std::array<uint32_t, 2> key);

// Uniform in [0, 1), a multiple of 2^-53: the top 53 bits of words 0 and 1 of the block with
// key = seed and counter = draw (low words first).
[[nodiscard]] double uniform_draw(uint64_t seed, uint64_t draw);

}  // namespace hotset
