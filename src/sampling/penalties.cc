// SPDX-License-Identifier: Apache-2.0
#include "sampling/penalties.h"

namespace hotset {

TokenHistory::TokenHistory(const SamplingParams& params, std::span<const int32_t> prompt_ids)
    : repetition_(static_cast<float>(params.repetition_penalty)),
      presence_(static_cast<float>(params.presence_penalty)),
      frequency_(static_cast<float>(params.frequency_penalty)),
      active_(repetition_ != 1 || presence_ != 0 || frequency_ != 0) {
  if (repetition_ == 1) return;
  for (const int32_t id : prompt_ids) generated_counts_.try_emplace(id, 0);
}

void TokenHistory::append_generated(int32_t token) {
  if (active_) ++generated_counts_[token];
}

float TokenHistory::changed(float score, int32_t count) const {
  if (repetition_ != 1) score = score < 0 ? score * repetition_ : score / repetition_;
  if (count > 0) score -= frequency_ * static_cast<float>(count) + presence_;
  return score;
}

float TokenHistory::penalized(int32_t id, float score) const {
  if (!active_) return score;
  const auto found = generated_counts_.find(id);
  return found == generated_counts_.end() ? score : changed(score, found->second);
}

void TokenHistory::apply_penalties(std::span<float> scores) const {
  for (const auto& [id, count] : generated_counts_) {
    if (id < 0 || static_cast<size_t>(id) >= scores.size()) continue;
    float& score = scores[static_cast<size_t>(id)];
    score = changed(score, count);
  }
}

}  // namespace hotset
