// SPDX-License-Identifier: Apache-2.0
// Calls written as JSON between <tool_call> tags.
#include "chat/json_text.h"
#include "chat/tool_call_body.h"

namespace hotset {
namespace {

constexpr std::string_view kClose = "</tool_call>";

}  // namespace

std::optional<ToolCall> parse_hermes_body(std::string_view body) {
  const auto json = parse_bounded_json(body);
  if (!json || !json->is_object()) return std::nullopt;
  const auto name = json->find("name");
  if (name == json->end() || !name->is_string() || name->get_ref<const std::string&>().empty()) {
    return std::nullopt;
  }
  ToolCall call;
  call.name = name->get<std::string>();
  const std::string_view key = json->contains("arguments") ? "arguments" : "parameters";
  const auto arguments = json->find(key);
  if (arguments == json->end() || arguments->is_null()) {
    call.arguments = "{}";
  } else if (arguments->is_object()) {
    const std::string_view written = find_member_text(body, key);
    call.arguments = written.empty() ? dump_json(*arguments) : std::string(written);
  } else if (arguments->is_string()) {  // encoded twice
    const auto& inner = arguments->get_ref<const std::string&>();
    const auto parsed = parse_bounded_json(inner);
    if (!parsed || !parsed->is_object()) return std::nullopt;
    call.arguments = inner;
  } else {
    return std::nullopt;
  }
  return call;
}

size_t HermesScanner::find_end(std::string_view text) {
  while (at_ < text.size()) {
    const char c = text[at_];
    if (in_string_) {
      if (c == '\\') {
        if (at_ + 1 >= text.size()) return std::string_view::npos;
        ++at_;
      } else if (c == '"') {
        in_string_ = false;
      }
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '<') {
      const TagMatch match = match_tag(text, at_, kClose);
      if (match == TagMatch::kYes) return at_;
      if (match == TagMatch::kPartial) return std::string_view::npos;
    }
    ++at_;
  }
  return std::string_view::npos;
}

}  // namespace hotset
