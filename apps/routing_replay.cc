// SPDX-License-Identifier: Apache-2.0
#include "routing_replay.h"

#include <algorithm>
#include <numeric>

#include "experts/slot_cache_replay.h"

namespace hotset {
namespace {

std::span<const uint16_t> ids_of(const RecordedRouting& routing, int32_t layer, int64_t token) {
  const auto k = static_cast<size_t>(routing.shape.top_k);
  return std::span(routing.choices[static_cast<size_t>(layer)])
      .subspan(static_cast<size_t>(token) * k, k);
}

Result<SlotCache> cache_for(const RecordedRouting& routing, int percent) {
  const RoutingShape& shape = routing.shape;
  const int64_t experts = int64_t{shape.num_layers} * shape.num_experts;
  return SlotCache::create(live_cache_options(shape.num_layers, shape.num_experts,
                                              static_cast<int32_t>(experts * percent / 100),
                                              std::max<int64_t>(1, routing.expert_bytes)));
}

struct Tokens {
  int64_t begin = 0;
  int64_t first_counted = 0;
  int64_t end = 0;
};

// Hits of each layer.
std::vector<int64_t> replay(const RecordedRouting& routing, SlotCache cache, const Tokens& tokens) {
  SlotCacheReplay replay(std::move(cache));
  replay.fill();
  std::vector<int64_t> hits(routing.choices.size());
  for (int64_t token = tokens.begin; token < tokens.end; ++token) {
    const int64_t step = token - tokens.begin;
    for (int32_t layer = 0; layer < routing.shape.num_layers; ++layer) {
      const int32_t found = replay.use(layer, step, ids_of(routing, layer, token));
      if (token >= tokens.first_counted) hits[static_cast<size_t>(layer)] += found;
    }
    replay.end_step(step);
  }
  return hits;
}

Result<RoutingProfile> profile_of(const RecordedRouting& routing, int64_t num_tokens) {
  HS_ASSIGN_OR_RETURN(RoutingProfile profile, RoutingProfile::create(routing.shape));
  for (int32_t layer = 0; layer < routing.shape.num_layers; ++layer) {
    for (int64_t token = 0; token < num_tokens; ++token) {
      profile.add(layer, ids_of(routing, layer, token));
    }
  }
  profile.add_tokens(num_tokens);
  return profile;
}

}  // namespace

Result<std::vector<RoutingStats>> stats_of(const RecordedRouting& routing) {
  const RoutingShape& shape = routing.shape;
  std::vector<RoutingStats> stats;
  for (const std::vector<uint16_t>& choices : routing.choices) {
    stats.push_back(routing_stats(choices, shape.top_k, shape.num_experts));
  }
  const int64_t num_tokens = routing.num_tokens();
  const Tokens tokens{0, num_tokens / 4, num_tokens};  // as the LRU is counted
  const auto counted = static_cast<double>((tokens.end - tokens.first_counted) * shape.top_k);
  for (size_t i = 0; i < kCachePercents.size() && counted > 0; ++i) {
    HS_ASSIGN_OR_RETURN(SlotCache cache, cache_for(routing, kCachePercents[i]));
    const std::vector<int64_t> hits = replay(routing, std::move(cache), tokens);
    for (size_t l = 0; l < stats.size(); ++l) {
      stats[l].hotset[i] = static_cast<double>(hits[l]) / counted;
    }
  }
  return stats;
}

Result<ColdStart> cold_start_of(const RecordedRouting& routing) {
  const int64_t half = routing.num_tokens() / 2;
  ColdStart start{.num_tokens = std::min(ColdStart::kMaxTokens, routing.num_tokens() - half)};
  if (start.num_tokens == 0) return start;
  const Tokens tokens{half, half, half + start.num_tokens};
  const auto share = [&](SlotCache cache) {
    const std::vector<int64_t> hits = replay(routing, std::move(cache), tokens);
    return static_cast<double>(std::accumulate(hits.begin(), hits.end(), int64_t{0})) /
           static_cast<double>(start.num_tokens * routing.shape.ids_per_step());
  };
  HS_ASSIGN_OR_RETURN(SlotCache cache, cache_for(routing, ColdStart::kPercent));
  start.arbitrary = share(std::move(cache));
  HS_ASSIGN_OR_RETURN(const RoutingProfile profile, profile_of(routing, half));
  HS_ASSIGN_OR_RETURN(SlotCache seeded, cache_for(routing, ColdStart::kPercent));
  HS_RETURN_IF_ERROR(seeded.seed(profile));
  start.seeded = share(std::move(seeded));
  return start;
}

}  // namespace hotset
