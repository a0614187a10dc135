// SPDX-License-Identifier: Apache-2.0
#include "request/limits.h"

#include <algorithm>

#include "base/check.h"

namespace hotset {
namespace {

constexpr double kMaxTokenCount = 2147483647;  // what fits is decided against the context later

constexpr NumberLimit kNumberLimits[] = {
    {"temperature", 0, 2, false},
    {"top_k", -1, 1'000'000, true},
    {"top_p", 0, 1, false, true},
    {"min_p", 0, 1, false},
    {"repetition_penalty", 0, 10, false, true},
    {"presence_penalty", -2, 2, false},
    {"frequency_penalty", -2, 2, false},
    {"max_tokens", 1, kMaxTokenCount, true},
    {"max_completion_tokens", 1, kMaxTokenCount, true},
    {"min_tokens", 0, kMaxTokenCount, true},
    {"top_logprobs", 0, 20, true},
    {"logprobs", 0, 20, true},  // of /v1/completions; a boolean in /v1/chat/completions
    {"n", 1, 8, true},
    {"best_of", 1, 1, true},
};

constexpr CountLimit kCountLimits[] = {
    {"stop", 16},   {"stop_token_ids", 256}, {"logit_bias", 1024}, {"messages", 4096},
    {"tools", 128}, {"tool_calls", 128},     {"content", 1024},    {"prompt", 1},
};

template <typename Row>
const Row& find_row(std::span<const Row> rows, std::string_view field) {
  const auto it =
      std::find_if(rows.begin(), rows.end(), [&](const Row& row) { return row.field == field; });
  HS_CHECK(it != rows.end(), "no limit is written down for '{}'", field);
  return *it;
}

}  // namespace

std::span<const NumberLimit> number_limits() {
  return kNumberLimits;
}
std::span<const CountLimit> count_limits() {
  return kCountLimits;
}

const NumberLimit& number_limit(std::string_view field) {
  return find_row(number_limits(), field);
}
size_t count_limit(std::string_view field) {
  return find_row(count_limits(), field).max_items;
}

}  // namespace hotset
