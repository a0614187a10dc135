// SPDX-License-Identifier: Apache-2.0
// JSON from clients, read by one strict reader: valid UTF-8, one value, at most 64 levels deep, at
// most a million values, no key twice in one object (two readers that disagree on duplicate keys
// are how checks get bypassed), no number that a double can't hold. Key order is kept, because tool
// schemas are shown to the model as the client wrote them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace hotset {

using Json = nlohmann::ordered_json;

inline constexpr size_t kMaxJsonDepth = 64;
inline constexpr size_t kMaxJsonValues = 1'000'000;

[[nodiscard]] Result<Json> parse_strict_json(std::string_view text);

// json == text. The library's own comparison makes a JSON value of the text first, inside a
// noexcept function: without memory for that, the process would end.
[[nodiscard]] inline bool is_text(const Json& json, std::string_view text) {
  return json.is_string() && json.get_ref<const std::string&>() == text;
}

// Compact text. Never throws: what is not UTF-8 becomes U+FFFD.
[[nodiscard]] std::string to_json_text(const Json& json);

}  // namespace hotset
