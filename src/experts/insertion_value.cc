// SPDX-License-Identifier: Apache-2.0
#include "experts/insertion_value.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace hotset {

InsertionValue::InsertionValue(int64_t num_ids, int32_t payback_steps)
    : payback_steps_(payback_steps) {
  trials_.resize(static_cast<size_t>(num_ids));
  pending_.resize(static_cast<size_t>(num_ids));
}

int InsertionValue::bin_of(double log_score) {
  const double at = std::floor((log_score - kLowest) * kBinsPerOctave);
  return static_cast<int>(std::clamp(at, 0.0, static_cast<double>(kBins - 1)));
}

void InsertionValue::advance(int64_t step) {
  while (count_ > 0 && pending_[first_].end_step < step) {
    Trial& trial = trials_[static_cast<size_t>(pending_[first_].id)];
    Mean& mean = means_[static_cast<size_t>(trial.role)][trial.bin];
    mean.weight = std::min(mean.weight + 1, kMemory);
    mean.value += (trial.uses - mean.value) / mean.weight;
    trial.active = false;
    first_ = first_ + 1 == pending_.size() ? 0 : first_ + 1;
    --count_;
  }
}

void InsertionValue::observe(Role role, int64_t id, double log_score, int64_t step) {
  Trial& trial = trials_[static_cast<size_t>(id)];
  if (trial.active) return;
  trial = {.uses = 0, .bin = static_cast<uint8_t>(bin_of(log_score)), .role = role, .active = true};
  HS_CHECK(count_ < pending_.size(), "{} trials of {} experts", count_, pending_.size());
  const size_t at = first_ + count_;
  pending_[at < pending_.size() ? at : at - pending_.size()] = {id, step + payback_steps_};
  ++count_;
}

// The mean of the bin and of as many on both sides as make enough trials. Before anything is known,
// a second touch is taken to foretell a use in every fourth step, and a victim none.
double InsertionValue::expected_uses(Role role, double log_score) const {
  const std::array<Mean, kBins>& bins = means_[static_cast<size_t>(role)];
  const int at = bin_of(log_score);
  double sum = role == Role::kCandidate ? 0.25 * payback_steps_ : 0.0;
  int32_t weight = 1;
  const auto take = [&](int bin) {
    if (bin < 0 || bin >= kBins) return;
    const Mean& mean = bins[static_cast<size_t>(bin)];
    sum += mean.value * mean.weight;
    weight += mean.weight;
  };
  take(at);
  for (int distance = 1; distance < kBins && weight <= kEnoughTrials; ++distance) {
    take(at - distance);
    take(at + distance);
  }
  return sum / weight;
}

}  // namespace hotset
