// SPDX-License-Identifier: Apache-2.0
// POST /v1/chat/completions, JSON → struct. What comes out is checked and normalised: roles are
// system, user, assistant or tool; content is a string; nobody behind this has to ask again.
#pragma once

#include <string>

#include "request/sampling_params.h"
#include "server/api_error.h"
#include "server/sampling_fields.h"
#include "server/strict_json.h"

namespace hotset {

struct ChatRequest : CommonRequest {
  Json messages = Json::array();
  Json tools = Json::array();  // as the client wrote them; empty with tool_choice "none"
  Json template_extra = Json::object();
  bool include_reasoning = true;
};

[[nodiscard]] ApiResult<ChatRequest> parse_chat_request(const Json& body,
                                                        const SamplingParams& defaults,
                                                        int64_t num_valid_tokens);

}  // namespace hotset
