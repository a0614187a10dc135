// SPDX-License-Identifier: Apache-2.0
// JSON as text from a model or a client: parsed only when its nesting is bounded, because walking
// and printing a parsed document recurse; and members found in place, so that what a model wrote
// can be handed on byte for byte.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

namespace hotset {

constexpr int kMaxJsonTextDepth = 64;

// Null when it is not JSON or nested deeper than kMaxJsonTextDepth.
[[nodiscard]] std::optional<nlohmann::ordered_json> parse_bounded_json(std::string_view text);

// The text of a member's value in a JSON object known to be valid; empty when there is none.
[[nodiscard]] std::string_view find_member_text(std::string_view object, std::string_view name);

// One printed line; broken UTF-8 becomes U+FFFD.
[[nodiscard]] std::string dump_json(const nlohmann::ordered_json& json);

}  // namespace hotset
