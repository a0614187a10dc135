// SPDX-License-Identifier: Apache-2.0
// How the packed columns of a linear follow from the groups of its inputs (g_idx).
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/linear_source.h"

namespace hotset {

struct ColumnOrder {
  std::vector<int32_t> g_idx;        // of every input; left empty when `group` was given and all
                                     // inputs are in order
  std::vector<int32_t> order;        // empty: identity
  std::vector<int32_t> block_group;  // stored group of each packed group
  bool expressible = false;          // in packed groups of `group` columns
};

// `group`: columns of a packed group; 0 asks for g_idx alone.
[[nodiscard]] Result<ColumnOrder> column_order(const Checkpoint& checkpoint,
                                               const LinearSource& source, int64_t group);

}  // namespace hotset
