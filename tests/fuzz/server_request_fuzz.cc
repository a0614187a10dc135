// SPDX-License-Identifier: Apache-2.0
// Request bodies → parameters. Whatever the bytes are: no crash, no hang, and what is accepted
// passes the validator and can be written out as JSON again.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "request/validate.h"
#include "server/chat_request.h"
#include "server/completion_request.h"
#include "server/stop_matcher.h"
#include "server/strict_json.h"

namespace {

constexpr int64_t kNumTokens = 1000;

void check_accepted(const hotset::SamplingParams& params) {
  HS_CHECK(hotset::validate(params, kNumTokens).has_value(), "accepted, but not valid");
  HS_CHECK(params.stop.size() <= 16, "{} stop strings", params.stop.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto json = hotset::parse_strict_json(text);
  if (!json) return 0;
  const std::string written = hotset::to_json_text(*json);
  HS_CHECK(hotset::parse_strict_json(written).has_value(), "not JSON: {}", written);
  if (const auto chat = hotset::parse_chat_request(*json, {}, kNumTokens)) {
    check_accepted(chat->params);
    HS_CHECK(!chat->messages.empty(), "no messages");
    for (const auto& message : chat->messages) {
      HS_CHECK(message["role"].is_string() && message["content"].is_string(), "not normalised");
    }
    hotset::StopMatcher matcher(chat->params.stop, false);
    (void)matcher.push(text);
    (void)matcher.finish();
  }
  if (const auto completion = hotset::parse_completion_request(*json, {}, kNumTokens)) {
    check_accepted(completion->params);
    HS_CHECK(!completion->prompt_text.empty() || !completion->prompt_ids.empty(), "no prompt");
  }
  return 0;
}
