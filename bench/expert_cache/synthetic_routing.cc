// SPDX-License-Identifier: Apache-2.0
#include "expert_cache/synthetic_routing.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace hotset {
namespace {

// The standard distributions differ between libraries; these don't.
double unit(std::mt19937_64& engine) {
  return static_cast<double>(engine() >> 11) * 0x1.0p-53;
}
size_t below(std::mt19937_64& engine, size_t n) {
  return std::min(n - 1, static_cast<size_t>(unit(engine) * static_cast<double>(n)));
}

}  // namespace

SyntheticRouting::SyntheticRouting(const SyntheticOptions& options)
    : options_(options), engine_(options.seed) {
  const auto experts = static_cast<size_t>(options.shape.num_experts);
  const auto layers = static_cast<size_t>(options.shape.num_layers);
  double sum = 0;
  for (size_t rank = 0; rank < experts; ++rank) {
    sum += std::pow(static_cast<double>(rank + 1), -options.exponent);
    cumulative_.push_back(sum);
  }
  for (double& c : cumulative_) c /= sum;
  ranks_.resize(layers * experts);
  for (size_t layer = 0; layer < layers; ++layer) {
    uint16_t* const row = ranks_.data() + layer * experts;
    std::iota(row, row + experts, uint16_t{0});
    for (size_t i = experts; i > 1; --i) std::swap(row[i - 1], row[below(engine_, i)]);
  }
  taken_.assign(experts, false);
  pending_drift_.assign(layers, 0);
  ids_.resize(static_cast<size_t>(options.shape.ids_per_step()));
}

std::span<const uint16_t> SyntheticRouting::next() {
  for (int32_t layer = 0; layer < options_.shape.num_layers; ++layer) {
    draw(layer, ids_.data() + int64_t{layer} * options_.shape.top_k);
    drift(layer);
  }
  return ids_;
}

void SyntheticRouting::draw(int32_t layer, uint16_t* out) {
  const auto experts = static_cast<size_t>(options_.shape.num_experts);
  const uint16_t* const row = ranks_.data() + static_cast<size_t>(layer) * experts;
  std::fill(taken_.begin(), taken_.end(), false);
  for (int32_t i = 0; i < options_.shape.top_k;) {
    const auto at = std::lower_bound(cumulative_.begin(), cumulative_.end(), unit(engine_));
    const size_t rank = std::min(static_cast<size_t>(at - cumulative_.begin()), experts - 1);
    if (taken_[rank]) continue;
    taken_[rank] = true;
    out[i++] = row[rank];
  }
}

void SyntheticRouting::drift(int32_t layer) {
  const auto experts = static_cast<size_t>(options_.shape.num_experts);
  uint16_t* const row = ranks_.data() + static_cast<size_t>(layer) * experts;
  double& pending = pending_drift_[static_cast<size_t>(layer)];
  pending += options_.drift * static_cast<double>(experts);
  for (; pending >= 1; pending -= 1) {
    std::swap(row[below(engine_, experts)], row[below(engine_, experts)]);
  }
}

}  // namespace hotset
