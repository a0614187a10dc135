// SPDX-License-Identifier: Apache-2.0
// JSON pieces that all answers share: token logprobs, usage, timings, server-sent events.
#pragma once

#include <string>
#include <string_view>

#include "request/token_event.h"
#include "server/strict_json.h"
#include "tokenizer/tokenizer.h"

namespace hotset {

// {"token","logprob","bytes","top_logprobs"}. `bytes` are exact; "token" shows U+FFFD where a token
// holds a part of a character.
[[nodiscard]] Json token_logprob_json(const TokenEvent& event, const Tokenizer& tokenizer);

// The token as text, U+FFFD for what is not UTF-8 by itself.
[[nodiscard]] std::string token_text(const Tokenizer& tokenizer, int32_t token);

[[nodiscard]] Json usage_json(const RequestStats& stats, int64_t num_reasoning_tokens);
[[nodiscard]] Json timings_json(const RequestStats& stats);

// "data: {…}\n\n"
[[nodiscard]] std::string sse_event(const Json& json);
inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";
inline constexpr std::string_view kSsePing = ": ping\n\n";

// "stop", "length" or, for anything else, "stop" — the words clients know.
[[nodiscard]] std::string_view wire_finish_reason(FinishReason reason);

}  // namespace hotset
