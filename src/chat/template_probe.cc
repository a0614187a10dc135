// SPDX-License-Identifier: Apache-2.0
// Probing at load time, repairing at request time.
#include "chat/template_probe.h"

#include <fmt/format.h>

#include "chat/json_text.h"

namespace hotset {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kMarker = "hotsetprobe";

bool shows_marker(const Template& compiled, const Json& tokens, Json messages) {
  Json context = Json::object();
  context["messages"] = std::move(messages);
  context["tools"] = nullptr;
  context["documents"] = nullptr;
  context["add_generation_prompt"] = false;
  const auto rendered = compiled.render(context, tokens);
  return rendered && rendered->text.find(kMarker) != std::string::npos;
}

Json call_conversation(Json arguments) {
  Json function = {{"name", "f"}, {"arguments", std::move(arguments)}};
  Json call = {{"id", "call_1"}, {"type", "function"}, {"function", std::move(function)}};
  return Json::array({{{"role", "user"}, {"content", "q"}},
                      {{"role", "assistant"}, {"content", ""}, {"tool_calls", Json::array({call})}},
                      {{"role", "tool"}, {"content", "r"}, {"tool_call_id", "call_1"}}});
}

Json content_conversation(Json content) {
  return Json::array({{{"role", "user"}, {"content", std::move(content)}}});
}

Status parse_arguments(Json& arguments, const std::string& where) {
  if (arguments.is_null()) {
    arguments = Json::object();
    return {};
  }
  if (!arguments.is_string()) return {};
  const std::string text = arguments.get<std::string>();
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) {
    arguments = Json::object();
    return {};
  }
  auto parsed = parse_bounded_json(text);
  if (!parsed || !parsed->is_object()) {
    return fail(
        fmt::format("{}: the template needs an object, and this string is not one in JSON", where));
  }
  arguments = std::move(*parsed);
  return {};
}

Status parse_call_arguments(Json& message, size_t index) {
  const auto calls = message.find("tool_calls");
  if (calls == message.end() || !calls->is_array()) return {};
  for (size_t i = 0; i < calls->size(); ++i) {
    Json& call = (*calls)[i];
    if (!call.is_object()) continue;
    const auto nested = call.find("function");
    Json& holder = nested != call.end() && nested->is_object() ? *nested : call;
    const auto arguments = holder.find("arguments");
    if (arguments == holder.end()) continue;
    HS_RETURN_IF_ERROR(parse_arguments(
        *arguments, fmt::format("messages[{}].tool_calls[{}].function.arguments", index, i)));
  }
  return {};
}

// [{"type": "text", "text": "a"}, …] becomes one string, parts on lines of their own.
Status flatten_content(Json& message, size_t index) {
  const auto content = message.find("content");
  if (content == message.end() || !content->is_array()) return {};
  std::string joined;
  for (size_t i = 0; i < content->size(); ++i) {
    const Json& part = (*content)[i];
    const bool is_text = part.is_object() && part.contains("text") && part["text"].is_string();
    if (!is_text && !part.is_string()) {
      return fail(
          fmt::format("messages[{}].content[{}]: only text parts can be rendered", index, i));
    }
    if (i > 0) joined += '\n';
    joined +=
        is_text ? part["text"].get_ref<const std::string&>() : part.get_ref<const std::string&>();
  }
  *content = std::move(joined);
  return {};
}

}  // namespace

TemplateTraits probe_template(const Template& compiled, const Json& special_tokens) {
  TemplateTraits traits;
  const std::string marker(kMarker);
  const Json object = {{"key", marker}};
  traits.needs_argument_objects =
      !shows_marker(compiled, special_tokens, call_conversation(object.dump())) &&
      shows_marker(compiled, special_tokens, call_conversation(object));
  const Json parts = Json::array({{{"type", "text"}, {"text", marker}}});
  // A template that prints the list itself shows the marker too, in quotes.
  traits.needs_plain_content =
      !shows_marker(compiled, special_tokens, content_conversation(parts)) ||
      compiled.render({{"messages", content_conversation(parts)}}, special_tokens)
          .map(
              [&](const Rendered& out) { return out.text.find("'" + marker) != std::string::npos; })
          .value_or(false);
  return traits;
}

Status prepare_messages(Json& messages, const Json& tools, const TemplateTraits& traits) {
  if (!messages.is_array() || messages.empty()) {
    return fail("messages: a non-empty array is needed");
  }
  if (!tools.is_null() && !tools.is_array()) return fail("tools: an array is needed");
  for (size_t i = 0; i < messages.size(); ++i) {
    Json& message = messages[i];
    if (!message.is_object()) return fail(fmt::format("messages[{}]: an object is needed", i));
    const auto role = message.find("role");
    if (role == message.end() || !role->is_string()) {
      return fail(fmt::format("messages[{}].role: a string is needed", i));
    }
    if (traits.needs_argument_objects) HS_RETURN_IF_ERROR(parse_call_arguments(message, i));
    if (traits.needs_plain_content) HS_RETURN_IF_ERROR(flatten_content(message, i));
  }
  return {};
}

}  // namespace hotset
