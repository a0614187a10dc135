// SPDX-License-Identifier: Apache-2.0
// What is reported about probabilities: the log-softmax of the model's raw logits, before
// penalties, bias, temperature and filters. So logprobs describe the model and not the settings,
// and a greedy answer with and without penalties reports the same numbers for the same token.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "request/token_event.h"

namespace hotset {

// log(sum(exp(logits))), in double precision. REQUIRES: finite logits, at least one.
[[nodiscard]] double log_sum_exp(std::span<const float> logits);

// The n most probable ids, most probable first, lower id first among equals.
[[nodiscard]] std::vector<TokenLogprob> top_logprobs(std::span<const float> logits,
                                                     double log_normalizer, size_t n);

}  // namespace hotset
