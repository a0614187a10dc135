// SPDX-License-Identifier: Apache-2.0
#include "server/wire.h"

#include "base/utf8.h"

namespace hotset {
namespace {

Json one_logprob(const Tokenizer& tokenizer, int32_t token, float logprob) {
  Json out;
  out["token"] = token_text(tokenizer, token);
  out["logprob"] = logprob;
  Json bytes = Json::array();
  for (const char byte : tokenizer.token_bytes(token)) bytes.push_back(static_cast<uint8_t>(byte));
  out["bytes"] = std::move(bytes);
  return out;
}

double per_second(int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

}  // namespace

std::string token_text(const Tokenizer& tokenizer, int32_t token) {
  return utf8_replace_invalid(tokenizer.token_bytes(token));
}

Json token_logprob_json(const TokenEvent& event, const Tokenizer& tokenizer) {
  Json out = one_logprob(tokenizer, *event.token, event.logprob);
  Json top = Json::array();
  for (const TokenLogprob& entry : event.top_logprobs) {
    top.push_back(one_logprob(tokenizer, entry.token, entry.logprob));
  }
  out["top_logprobs"] = std::move(top);
  return out;
}

Json usage_json(const RequestStats& stats, int64_t num_reasoning_tokens) {
  Json out;
  out["prompt_tokens"] = stats.num_prompt_tokens;
  out["completion_tokens"] = stats.num_output_tokens;
  out["total_tokens"] = stats.num_prompt_tokens + stats.num_output_tokens;
  out["prompt_tokens_details"] = {{"cached_tokens", stats.num_cached_tokens}};
  out["completion_tokens_details"] = {{"reasoning_tokens", num_reasoning_tokens}};
  return out;
}

// The first output token is part of the prefill, so the decode rate counts the others.
Json timings_json(const RequestStats& stats) {
  const int64_t num_computed = stats.num_prompt_tokens - stats.num_cached_tokens;
  const int64_t num_decoded = stats.num_output_tokens > 0 ? stats.num_output_tokens - 1 : 0;
  Json out;
  out["queue_ms"] = stats.queue_s * 1e3;
  out["prompt_n"] = num_computed;
  out["prompt_ms"] = stats.prefill_s * 1e3;
  out["prompt_per_second"] = per_second(num_computed, stats.prefill_s);
  out["predicted_n"] = stats.num_output_tokens;
  out["predicted_ms"] = stats.decode_s * 1e3;
  out["predicted_per_second"] = per_second(num_decoded, stats.decode_s);
  return out;
}

std::string sse_event(const Json& json) {
  return "data: " + to_json_text(json) + "\n\n";
}

std::string_view wire_finish_reason(FinishReason reason) {
  return reason == FinishReason::kLength ? "length" : "stop";
}

}  // namespace hotset
