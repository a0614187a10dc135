// SPDX-License-Identifier: Apache-2.0
// UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace hotset {

// Bytes of the longest prefix that is valid UTF-8 in whole characters.
[[nodiscard]] size_t utf8_valid_prefix(std::string_view text);
[[nodiscard]] inline bool utf8_is_valid(std::string_view text) {
  return utf8_valid_prefix(text) == text.size();
}

// True when `tail` is a proper prefix of some character: more bytes could complete it.
[[nodiscard]] bool utf8_is_incomplete(std::string_view tail);

// Every maximal invalid piece becomes U+FFFD, as WHATWG and Python's errors="replace" do it.
[[nodiscard]] std::string utf8_replace_invalid(std::string_view text);

void utf8_append(std::string& out, char32_t code_point);

}  // namespace hotset
