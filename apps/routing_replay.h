// SPDX-License-Identifier: Apache-2.0
// What the live expert cache (experts/slot_cache.h) would have hit with choices that were recorded:
// token after token, as decode goes, with copies that take a step.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "experts/routing_profile.h"
#include "routing_stats.h"

namespace hotset {

struct RecordedRouting {
  RoutingShape shape;
  std::span<const std::vector<uint16_t>> choices;  // [num_layers], each [num_tokens, top_k]
  int64_t expert_bytes = 1;                        // of a record; copies of a step are bounded

  [[nodiscard]] int64_t num_tokens() const { return std::ssize(choices.front()) / shape.top_k; }
};

// Of every layer: all that routing_stats.h knows.
[[nodiscard]] Result<std::vector<RoutingStats>> stats_of(const RecordedRouting& routing);

// A cache of a fifth of the experts in the first tokens after its load: with arbitrary experts, and
// seeded by a profile of what was recorded before. Shares of the choices.
struct ColdStart {
  static constexpr int kPercent = 20;
  static constexpr int64_t kMaxTokens = 128;
  int64_t num_tokens = 0;
  double arbitrary = 0;
  double seeded = 0;
};
// The seed is taken from the first half, the tokens from the beginning of the second.
[[nodiscard]] Result<ColdStart> cold_start_of(const RecordedRouting& routing);

}  // namespace hotset
