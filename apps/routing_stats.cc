// SPDX-License-Identifier: Apache-2.0
#include "routing_stats.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

namespace hotset {
namespace {

std::vector<int64_t> count_choices(std::span<const uint16_t> choices, int64_t num_experts) {
  std::vector<int64_t> counts(static_cast<size_t>(num_experts));
  for (const uint16_t expert : choices) counts[static_cast<size_t>(expert)] += 1;
  return counts;
}

int64_t slots_of(int percent, int64_t num_experts) {
  return std::max<int64_t>(1, num_experts * percent / 100);
}

double entropy(const std::vector<int64_t>& counts, double total) {
  double bits = 0;
  for (const int64_t count : counts) {
    if (count > 0)
      bits -= static_cast<double>(count) / total * std::log2(static_cast<double>(count) / total);
  }
  return bits;
}

double overlap_of_neighbours(std::span<const uint16_t> choices, size_t top_k) {
  int64_t shared = 0;
  for (size_t at = top_k; at + top_k <= choices.size(); at += top_k) {
    const auto before = choices.subspan(at - top_k, top_k);
    for (const uint16_t expert : choices.subspan(at, top_k)) {
      shared += std::count(before.begin(), before.end(), expert);
    }
  }
  return static_cast<double>(shared) / static_cast<double>(choices.size() - top_k);
}

// Experts in a layer's cache, each with the token that used it last.
class LeastRecentlyUsed {
 public:
  LeastRecentlyUsed(int64_t num_slots, int64_t num_experts)
      : num_slots_(static_cast<size_t>(num_slots)),
        last_use_(static_cast<size_t>(num_experts), kAbsent) {}

  [[nodiscard]] bool holds(int32_t expert) const {
    return last_use_[static_cast<size_t>(expert)] != kAbsent;
  }
  void use(int32_t expert, int64_t token) {
    if (!holds(expert)) {
      if (held_.size() == num_slots_) drop_oldest();
      held_.push_back(expert);
    }
    last_use_[static_cast<size_t>(expert)] = token;
  }

 private:
  static constexpr int64_t kAbsent = -1;
  void drop_oldest() {
    const auto oldest = std::min_element(held_.begin(), held_.end(), [&](int32_t a, int32_t b) {
      return last_use_[static_cast<size_t>(a)] < last_use_[static_cast<size_t>(b)];
    });
    last_use_[static_cast<size_t>(*oldest)] = kAbsent;
    *oldest = held_.back();
    held_.pop_back();
  }
  size_t num_slots_;
  std::vector<int64_t> last_use_;
  std::vector<int32_t> held_;
};

double lru_hit_rate(std::span<const uint16_t> choices, size_t top_k, int64_t num_slots,
                    int64_t num_experts) {
  LeastRecentlyUsed cache(num_slots, num_experts);
  const size_t num_tokens = choices.size() / top_k;
  int64_t hits = 0, looked_up = 0;
  for (size_t token = 0; token < num_tokens; ++token) {
    const auto chosen = choices.subspan(token * top_k, top_k);
    if (token >= num_tokens / 4) {
      looked_up += std::ssize(chosen);
      hits += std::count_if(chosen.begin(), chosen.end(),
                            [&](uint16_t expert) { return cache.holds(expert); });
    }
    for (const uint16_t expert : chosen) cache.use(expert, static_cast<int64_t>(token));
  }
  return static_cast<double>(hits) / static_cast<double>(std::max<int64_t>(1, looked_up));
}

}  // namespace

RoutingStats routing_stats(std::span<const uint16_t> choices, int64_t top_k, int64_t num_experts) {
  RoutingStats stats;
  const auto k = static_cast<size_t>(top_k);
  if (choices.size() <= k) return stats;
  const auto total = static_cast<double>(choices.size());
  std::vector<int64_t> counts = count_choices(choices, num_experts);
  stats.entropy_bits = entropy(counts, total);
  stats.overlap = overlap_of_neighbours(choices, k);
  std::sort(counts.begin(), counts.end(), std::greater<>());
  for (size_t i = 0; i < kCachePercents.size(); ++i) {
    const int64_t slots = slots_of(kCachePercents[i], num_experts);
    const int64_t most = std::accumulate(counts.begin(), counts.begin() + slots, int64_t{0});
    stats.fixed[i] = static_cast<double>(most) / total;
    stats.lru[i] = lru_hit_rate(choices, k, slots, num_experts);
  }
  return stats;
}

RoutingStats mean_of(std::span<const RoutingStats> layers) {
  RoutingStats mean;
  const double share = 1.0 / static_cast<double>(std::max<size_t>(1, layers.size()));
  for (const RoutingStats& layer : layers) {
    mean.entropy_bits += share * layer.entropy_bits;
    mean.overlap += share * layer.overlap;
    for (size_t i = 0; i < kCachePercents.size(); ++i) {
      mean.fixed[i] += share * layer.fixed[i];
      mean.lru[i] += share * layer.lru[i];
      mean.hotset[i] += share * layer.hotset[i];
    }
  }
  return mean;
}

}  // namespace hotset
