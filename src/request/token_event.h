// SPDX-License-Identifier: Apache-2.0
// What the engine sends back: one event per generated token, and exactly one last event that says
// why the answer ended and how long its stages took.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace hotset {

enum class FinishReason {
  kStop,       // an end-of-text id, a stop id, or (decided by the text side) a stop string
  kLength,     // max_tokens, or the context is full
  kError,      // TokenEvent::error says what happened; other requests are not affected
  kCancelled,  // the client left, or its stream was not read
};

[[nodiscard]] std::string_view finish_reason_name(FinishReason reason);

// Natural logarithm of a token's probability under the softmax of the raw logits: before
// penalties, bias, temperature and filters, over the real vocabulary.
struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;
};

struct RequestStats {
  double queue_s = 0;    // submit → first work
  double prefill_s = 0;  // first work → first token
  double decode_s = 0;   // first token → end
  int64_t num_prompt_tokens = 0;
  int64_t num_cached_tokens = 0;  // of the prompt, taken over from a kept sequence
  int64_t num_output_tokens = 0;
};

struct TokenEvent {
  std::optional<int32_t> token;            // absent in a last event that brings no token
  float logprob = 0;                       // of `token`, when logprobs were asked for
  std::vector<TokenLogprob> top_logprobs;  // most probable first
  std::optional<FinishReason> finish;      // set in the last event only
  Error error;                             // meaningful when finish is kError
  RequestStats stats;                      // filled in the last event
};

}  // namespace hotset
