// SPDX-License-Identifier: Apache-2.0
// One pass over the text, counting brackets outside of strings.
#include "chat/json_text.h"

#include <algorithm>

namespace hotset {
namespace {

// Index after the string whose opening quote is at `at`.
size_t skip_string(std::string_view text, size_t at) {
  for (++at; at < text.size() && text[at] != '"'; ++at) {
    if (text[at] == '\\') ++at;
  }
  return std::min(at + 1, text.size());
}

int max_depth(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '"') {
      at = skip_string(text, at) - 1;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return deepest;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpaces = " \t\r\n";
  const size_t begin = std::min(text.find_first_not_of(kSpaces), text.size());
  const size_t end = text.find_last_not_of(kSpaces);
  return end == std::string_view::npos ? std::string_view() : text.substr(begin, end + 1 - begin);
}

}  // namespace

std::optional<nlohmann::ordered_json> parse_bounded_json(std::string_view text) {
  if (max_depth(text) > kMaxJsonTextDepth) return std::nullopt;
  auto parsed = nlohmann::ordered_json::parse(text, nullptr, false);
  if (parsed.is_discarded()) return std::nullopt;
  return parsed;
}

std::string_view find_member_text(std::string_view object, std::string_view name) {
  int depth = 0;
  std::string_view key;    // of the member being read, in quotes
  size_t value_begin = 0;  // after its colon
  for (size_t at = 0; at < object.size();) {
    const char c = object[at];
    if (c == '"') {
      const size_t end = skip_string(object, at);
      if (depth == 1 && value_begin == 0) key = object.substr(at + 1, end - at - 2);
      at = end;
      continue;
    }
    const bool closes = c == '}' || c == ']';
    if (c == '{' || c == '[') ++depth;
    if (c == ':' && depth == 1 && value_begin == 0) value_begin = at + 1;
    if (depth == 1 && value_begin != 0 && (c == ',' || closes)) {
      if (key == name) return trimmed(object.substr(value_begin, at - value_begin));
      value_begin = 0;
    }
    if (closes) --depth;
    ++at;
  }
  return {};
}

std::string dump_json(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace hotset
