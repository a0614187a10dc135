// SPDX-License-Identifier: Apache-2.0
// What a sequence has said so far, and the changes to the logits that follow from it: repetition
// penalty over prompt and output (once per distinct id, as in Hugging Face transformers), then
// frequency and presence penalty over generated tokens only (as in the OpenAI API).
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>

#include "request/sampling_params.h"

namespace hotset {

class TokenHistory {
 public:
  // Counts only what `params` will need: with neutral penalties this holds nothing.
  TokenHistory(const SamplingParams& params, std::span<const int32_t> prompt_ids);

  void append_generated(int32_t token);

  // What the history makes of one score.
  [[nodiscard]] float penalized(int32_t id, float score) const;
  // Can a score become larger? Then a small one can come out on top.
  [[nodiscard]] bool can_raise() const {
    return repetition_ < 1 || presence_ < 0 || frequency_ < 0;
  }

  // scores[id] for every id of the history; ids beyond the scores are skipped.
  void apply_penalties(std::span<float> scores) const;

 private:
  [[nodiscard]] float changed(float score, int32_t count) const;

  float repetition_;
  float presence_;
  float frequency_;
  bool active_;
  std::unordered_map<int32_t, int32_t> generated_counts_;  // 0: in the prompt only
};

}  // namespace hotset
