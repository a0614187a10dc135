// SPDX-License-Identifier: Apache-2.0
// How much a cache of experts could learn from what a layer's router chose, token after token.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace hotset {

inline constexpr std::array<int, 3> kCachePercents = {10, 20, 30};  // of the layer's experts

struct RoutingStats {
  int64_t layer = 0;        // its number in the model
  double entropy_bits = 0;  // of how often each expert is chosen; log2(num_experts) if equally
  double overlap = 0;       // share of a token's experts that the token before had chosen
  // Share of the choices that fall on the experts chosen most in all, as many as kCachePercents
  // says: what the best fixed set would hit.
  std::array<double, 3> fixed = {};
  // Hit rate of a cache of that size that drops what was used least recently, after the first
  // quarter of the tokens.
  std::array<double, 3> lru = {};
  // The same of the expert cache that a GPU would have for all layers together, at so many percent
  // of all experts (routing_replay.h).
  std::array<double, 3> hotset = {};
};

// `choices`: [tokens, top_k], each below num_experts. Without the share of `hotset`.
[[nodiscard]] RoutingStats routing_stats(std::span<const uint16_t> choices, int64_t top_k,
                                         int64_t num_experts);
[[nodiscard]] RoutingStats mean_of(std::span<const RoutingStats> layers);

}  // namespace hotset
