// SPDX-License-Identifier: Apache-2.0
// POST /v1/completions, JSON → struct: one prompt, as text or as token ids.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "request/sampling_params.h"
#include "server/api_error.h"
#include "server/sampling_fields.h"

namespace hotset {

struct CompletionRequest : CommonRequest {
  std::string prompt_text;
  std::vector<int32_t> prompt_ids;  // used when not empty
  bool echo = false;                // answers begin with the prompt
};

// max_tokens defaults to 16 here, as the API has always had it.
[[nodiscard]] ApiResult<CompletionRequest> parse_completion_request(const Json& body,
                                                                    const SamplingParams& defaults,
                                                                    int64_t num_valid_tokens);

// Token ids in [0, num_valid_tokens) from a JSON array.
[[nodiscard]] ApiResult<std::vector<int32_t>> parse_token_ids(const Json& array,
                                                              const std::string& field,
                                                              int64_t num_valid_tokens);

}  // namespace hotset
