// SPDX-License-Identifier: Apache-2.0
// Hears what routers choose, layer by layer, on the thread that computes.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

namespace hotset {

// `experts`: [tokens of the step, top_k]; a shared expert is the last of each row, with the number
// of experts as its id.
using RoutingListener =
    std::function<void(int64_t layer, std::span<const int32_t> experts, int32_t top_k)>;

}  // namespace hotset
