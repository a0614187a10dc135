// SPDX-License-Identifier: Apache-2.0
// How much an expert is in use, as one number that needs no upkeep between uses.
//
// The score of an expert is the sum over its uses of tokens · 2^(-age / half_life), age in steps.
// All scores fade at the same rate, so their order changes only at a use, and we keep
//   key = log2 Σ tokens · 2^(step_of_use / half_life)
// which stays put while time passes; score now = 2^(key - now / half_life). A short half-life
// orders experts by recency, a long one by frequency. Keys of different layers compare: a step is
// one unit of time for all layers, so a pass over the layers leaves no trace in the order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace hotset {

inline constexpr double kNeverUsedKey = -1e18;

class ExpertScore {
 public:
  explicit ExpertScore(int32_t half_life_steps) : per_step_(1.0 / half_life_steps) {}

  [[nodiscard]] double now(int64_t step) const { return static_cast<double>(step) * per_step_; }

  // The key after `tokens` more uses at `step`, which is not before the last one.
  [[nodiscard]] double after_use(double key, int64_t step, int32_t tokens) const {
    const double at = now(step);
    const double before = key - at;  // log2 of the score so far
    if (before < kForgotten) return at + std::log2(static_cast<double>(tokens));
    return at + std::log2(static_cast<double>(tokens) + std::exp2(before));
  }

  // The key of an expert that has always been chosen with this probability per step.
  [[nodiscard]] double steady(double probability, int64_t step) const {
    if (probability <= 0) return kNeverUsedKey;
    return now(step) + std::log2(probability / (1.0 - std::exp2(-per_step_)));
  }

  // log2 of the score, in half-life units: 0 is one use right now, -1 one use a half-life ago.
  [[nodiscard]] double log_score(double key, int64_t step) const { return key - now(step); }

 private:
  static constexpr double kForgotten = -40.0;
  double per_step_;
};

}  // namespace hotset
