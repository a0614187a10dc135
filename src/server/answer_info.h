// SPDX-License-Identifier: Apache-2.0
// What both kinds of answers are told about their request, and the one line they leave behind.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "request/token_event.h"
#include "server/api_error.h"
#include "server/sampling_fields.h"

namespace hotset {

struct AnswerInfo {
  std::string id;
  std::string model;
  int64_t created_s = 0;  // Unix time
  StreamOptions stream;
  bool with_logprobs = false;
  int64_t num_prompt_tokens = 0;
  // Called once, when the answer has ended or its client has left.
  std::function<void(const std::string& id, const RequestStats&, FinishReason)> on_end;
};

// The error a last piece stands for, or status 0 when it ended well.
[[nodiscard]] ApiError end_error(FinishReason finish, const Error& error);

}  // namespace hotset
