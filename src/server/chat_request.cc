// SPDX-License-Identifier: Apache-2.0
#include "server/chat_request.h"

#include <fmt/format.h>

#include <utility>

#include "request/limits.h"
#include "server/field_reader.h"

namespace hotset {
namespace {

std::string normal_role(const std::string& role) {
  if (role == "developer") return "system";
  if (role == "function") return "tool";
  const bool is_known = role == "system" || role == "user" || role == "assistant" || role == "tool";
  return is_known ? role : std::string();
}

// A string, null, or an array of {"type":"text","text":…}, which is joined.
std::string read_content(FieldReader& fields) {
  const Json* value = fields.any("content");
  if (value == nullptr) return {};
  if (value->is_string()) return value->get<std::string>();
  const Json* parts = fields.array("content");
  if (parts == nullptr) return {};
  std::string text;
  for (const Json& part : *parts) {
    if (!part.is_object()) {
      fields.reject("content", "content parts must be objects.");
      return {};
    }
    FieldReader part_fields(part);
    const auto type = part_fields.string("type", kMaxNameBytes);
    const Json* piece = part_fields.any("text");
    if (!type || *type != "text" || piece == nullptr || !piece->is_string()) {
      fields.reject("content",
                    "content parts must be {\"type\": \"text\", \"text\": …}; this "
                    "model reads text only.");
      return {};
    }
    text += piece->get_ref<const std::string&>();
  }
  return text;
}

Json read_tool_calls(FieldReader& fields) {
  const Json* calls = fields.array("tool_calls");
  if (calls == nullptr) return nullptr;
  for (const Json& call : *calls) {
    const bool has_function = call.is_object() && call.contains("function") &&
                              call["function"].is_object() && call["function"].contains("name") &&
                              call["function"]["name"].is_string();
    if (!has_function) {
      fields.reject("tool_calls", "every tool call must have function.name.");
      return nullptr;
    }
    const auto arguments = call["function"].find("arguments");
    const bool is_fine = arguments == call["function"].end() || arguments->is_null() ||
                         arguments->is_string() || arguments->is_object();
    if (!is_fine) {
      fields.reject("tool_calls", "function.arguments must be a string of JSON or an object.");
      return nullptr;
    }
  }
  return *calls;
}

// Copies a string field when it is there.
void copy_string(FieldReader& fields, const char* from, const char* to, Json& message) {
  const Json* value = fields.any(from);
  if (value == nullptr || message.contains(to)) return;
  if (!value->is_string()) return fields.reject(from, fmt::format("{} must be a string.", from));
  message[to] = *value;
}

ApiResult<Json> read_message(const Json& source, size_t index) {
  const std::string path = fmt::format("messages[{}].", index);
  if (!source.is_object()) {
    return refuse_field("messages", fmt::format("messages[{}] must be an object.", index));
  }
  FieldReader fields(source, path);
  Json message = Json::object();
  const std::string role = normal_role(fields.string("role", kMaxNameBytes).value_or(""));
  if (role.empty()) {
    fields.reject("role", "role must be system, developer, user, assistant or tool.");
  }
  message["role"] = role;
  message["content"] = read_content(fields);
  copy_string(fields, "reasoning_content", "reasoning_content", message);
  copy_string(fields, "reasoning", "reasoning_content", message);
  copy_string(fields, "name", "name", message);
  copy_string(fields, "tool_call_id", "tool_call_id", message);
  Json calls = read_tool_calls(fields);
  if (!fields.ok()) return refuse(fields.error());
  if (!calls.is_null() && !calls.empty()) message["tool_calls"] = std::move(calls);
  return message;
}

void check_tool(FieldReader& fields, const Json& tool, size_t index) {
  const bool is_function = tool.is_object() && tool.contains("function") &&
                           tool["function"].is_object() && tool["function"].contains("name") &&
                           tool["function"]["name"].is_string();
  if (!is_function || (tool.contains("type") && !is_text(tool["type"], "function"))) {
    return fields.reject("tools", fmt::format("tools[{}] must be {{\"type\": \"function\", "
                                              "\"function\": {{\"name\": …}}}}.",
                                              index));
  }
  const size_t name_bytes = tool["function"]["name"].get_ref<const std::string&>().size();
  if (name_bytes == 0 || name_bytes > kMaxNameBytes) {
    return fields.reject("tools", fmt::format("tools[{}].function.name has {} bytes; 1 to {} are "
                                              "accepted.",
                                              index, name_bytes, kMaxNameBytes));
  }
  const size_t bytes = to_json_text(tool).size();
  if (bytes > kMaxSchemaBytes) {
    fields.reject("tools", fmt::format("tools[{}] has {} bytes; at most {} are accepted.", index,
                                       bytes, kMaxSchemaBytes));
  }
}

void read_tools(FieldReader& fields, ChatRequest& request) {
  if (const Json* tools = fields.array("tools")) {
    for (size_t i = 0; i < tools->size() && fields.ok(); ++i) check_tool(fields, (*tools)[i], i);
    request.tools = *tools;
  }
  const Json* choice = fields.any("tool_choice");
  if (choice == nullptr || is_text(*choice, "auto")) return;
  if (is_text(*choice, "none")) {
    request.tools = Json::array();
    return;
  }
  fields.reject("tool_choice",
                "tool_choice: \"auto\" and \"none\" are supported; the model can't "
                "be forced to call a tool.");
}

void read_logprobs(FieldReader& fields, SamplingParams& params) {
  const bool wanted = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs");
  if (top && *top > 0 && !wanted) {
    fields.reject("top_logprobs", "top_logprobs needs logprobs to be true.");
  }
  if (wanted) params.num_logprobs = top.value_or(0);
}

void read_messages(FieldReader& fields, ChatRequest& request, std::optional<ApiError>& error) {
  const Json* messages = fields.array("messages");
  if (messages == nullptr || messages->empty()) {
    return fields.reject("messages", "messages must hold at least one message.");
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    auto message = read_message((*messages)[i], i);
    if (!message) {
      error = std::move(message).error();
      return;
    }
    request.messages.push_back(std::move(message).value());
  }
}

}  // namespace

ApiResult<ChatRequest> parse_chat_request(const Json& body, const SamplingParams& defaults,
                                          int64_t num_valid_tokens) {
  if (!body.is_object()) return refuse_field("", "The body must be a JSON object.");
  ChatRequest request;
  request.params = defaults;
  FieldReader fields(body);
  std::optional<ApiError> message_error;
  read_messages(fields, request, message_error);
  if (message_error) return refuse(std::move(*message_error));
  read_tools(fields, request);
  read_common_fields(fields, request);
  read_logprobs(fields, request.params);
  request.include_reasoning = fields.boolean("include_reasoning").value_or(true);
  if (const Json* extra = fields.object("chat_template_kwargs")) request.template_extra = *extra;
  if (fields.boolean("echo").value_or(false)) {
    fields.reject("echo", "echo is for /v1/completions.");
  }
  const auto fine = check_common(fields, request, num_valid_tokens);
  if (!fine) return refuse(fine.error());
  return request;
}

}  // namespace hotset
