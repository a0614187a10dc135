// SPDX-License-Identifier: Apache-2.0
#include "request/validate.h"

#include <fmt/format.h>

#include <cmath>

#include "base/utf8.h"
#include "request/limits.h"

namespace hotset {
namespace {

using MaybeError = std::optional<FieldError>;

MaybeError wrong(std::string_view field, std::string message) {
  return FieldError{std::string(field), std::move(message)};
}

MaybeError check_count(std::string_view field, size_t count) {
  const size_t limit = count_limit(field);
  if (count <= limit) return std::nullopt;
  return wrong(field,
               fmt::format("{} has {} entries; at most {} are accepted.", field, count, limit));
}

MaybeError check_token(std::string_view field, int64_t token, int64_t num_valid_tokens) {
  if (token >= 0 && token < num_valid_tokens) return std::nullopt;
  return wrong(field, fmt::format("{}: token id {} is outside of the vocabulary (0 to {}).", field,
                                  token, num_valid_tokens - 1));
}

MaybeError check_numbers(const SamplingParams& p) {
  const struct {
    std::string_view field;
    double value;
  } rows[] = {
      {"temperature", p.temperature},
      {"top_k", static_cast<double>(p.top_k)},
      {"top_p", p.top_p},
      {"min_p", p.min_p},
      {"repetition_penalty", p.repetition_penalty},
      {"presence_penalty", p.presence_penalty},
      {"frequency_penalty", p.frequency_penalty},
      {"max_tokens", static_cast<double>(p.max_tokens.value_or(1))},
      {"min_tokens", static_cast<double>(p.min_tokens)},
      {"top_logprobs", static_cast<double>(p.num_logprobs.value_or(0))},
  };
  for (const auto& row : rows) {
    if (auto error = check_number(row.field, row.value)) return error;
  }
  if (p.max_tokens && p.min_tokens > *p.max_tokens) {
    return wrong("min_tokens", fmt::format("min_tokens is {} and larger than max_tokens, {}.",
                                           p.min_tokens, *p.max_tokens));
  }
  return std::nullopt;
}

MaybeError check_stop(const SamplingParams& p, int64_t num_valid_tokens) {
  if (auto error = check_count("stop", p.stop.size())) return error;
  for (const std::string& text : p.stop) {
    if (text.empty()) return wrong("stop", "stop: an empty string would end every answer.");
    if (text.size() > kMaxStopBytes) {
      return wrong("stop", fmt::format("stop: a string of {} bytes; at most {} are accepted.",
                                       text.size(), kMaxStopBytes));
    }
    if (!utf8_is_valid(text)) return wrong("stop", "stop: a string is not valid UTF-8.");
  }
  if (auto error = check_count("stop_token_ids", p.stop_token_ids.size())) return error;
  for (const int32_t token : p.stop_token_ids) {
    if (auto error = check_token("stop_token_ids", token, num_valid_tokens)) return error;
  }
  return std::nullopt;
}

MaybeError check_bias(const SamplingParams& p, int64_t num_valid_tokens) {
  if (auto error = check_count("logit_bias", p.logit_bias.size())) return error;
  for (const LogitBias& entry : p.logit_bias) {
    if (auto error = check_token("logit_bias", entry.token, num_valid_tokens)) return error;
    if (!(std::abs(entry.bias) <= kMaxLogitBias)) {
      return wrong("logit_bias",
                   fmt::format("logit_bias: {} for token {}; -{} to {} is accepted.", entry.bias,
                               entry.token, kMaxLogitBias, kMaxLogitBias));
    }
  }
  return std::nullopt;
}

}  // namespace

MaybeError check_number(std::string_view field, double value) {
  const NumberLimit& limit = number_limit(field);
  const bool above_min = limit.min_is_excluded ? value > limit.min : value >= limit.min;
  if (above_min && value <= limit.max) return std::nullopt;  // false for NaN
  if (limit.min == limit.max) {
    return wrong(field, fmt::format("{} is {}; only {} is supported.", field, value, limit.min));
  }
  return wrong(field,
               fmt::format("{} is {}; it must be {} {} and at most {}.", field, value,
                           limit.min_is_excluded ? "above" : "at least", limit.min, limit.max));
}

MaybeError check_params(const SamplingParams& params, int64_t num_valid_tokens) {
  if (auto error = check_numbers(params)) return error;
  if (auto error = check_stop(params, num_valid_tokens)) return error;
  return check_bias(params, num_valid_tokens);
}

Status validate(const SamplingParams& params, int64_t num_valid_tokens) {
  if (auto error = check_params(params, num_valid_tokens)) return fail(std::move(error->message));
  return {};
}

}  // namespace hotset
