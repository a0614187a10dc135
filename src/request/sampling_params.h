// SPDX-License-Identifier: Apache-2.0
// What a client may ask about how tokens are chosen and when to stop. Plain data: the limits are in
// request/limits.h, the check in request/validate.h, the arithmetic in sampling/.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace hotset {

struct LogitBias {
  int32_t token = 0;
  float bias = 0;  // added to the logit after the penalties
};

struct SamplingParams {
  // Choosing. The neutral value of each field switches it off.
  double temperature = 1;         // 0 means greedy: the largest logit, the lowest id among equals
  int64_t top_k = 0;              // 0 or -1: off
  double top_p = 1;               // relative to what top_k left
  double min_p = 0;               // relative to the most probable token
  double repetition_penalty = 1;  // over prompt and output, once per distinct id
  double presence_penalty = 0;    // over generated tokens only
  double frequency_penalty = 0;   // over generated tokens only, times the count
  std::vector<LogitBias> logit_bias;
  std::optional<int64_t> seed;  // absent: the engine picks one

  // Stopping.
  std::optional<int64_t> max_tokens;    // absent: the rest of the context
  int64_t min_tokens = 0;               // end-of-text ids and stop ids are masked until then
  std::vector<std::string> stop;        // matched on text, by the text side (never by the engine)
  std::vector<int32_t> stop_token_ids;  // end the answer like an end-of-text id
  bool ignore_eos = false;
  bool include_stop_str_in_output = false;

  // Reporting. Absent: none; 0: of the chosen token only; n: and of the n most probable.
  std::optional<int64_t> num_logprobs;
};

}  // namespace hotset
