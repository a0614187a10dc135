// SPDX-License-Identifier: Apache-2.0
// What a memory plan (placement.h) needs at least: its lines, its fewest slots, their sum. Plans
// and the advice of a refusal count by the same functions.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "experts/placement.h"

namespace hotset {

// Refuses a line below zero and a sum that can't be held.
[[nodiscard]] Result<int64_t> sum_of(const std::vector<PlacementLine>& lines);

// All but expert slots. REQUIRES: counts of tokens and sequences below 2⁴⁰.
[[nodiscard]] Result<std::vector<PlacementLine>> gpu_lines(const PlacementInput& in,
                                                           const DenseForm& dense);

// The fewest slots of which a plan can be made: some and those of a prefill, or as many as can be
// lent to a prefill, or all.
[[nodiscard]] int64_t least_slots(const PlacementInput& in);

[[nodiscard]] Result<int64_t> needed_gpu_bytes(const PlacementInput& in, const DenseForm& dense);

}  // namespace hotset
