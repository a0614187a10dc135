// SPDX-License-Identifier: Apache-2.0
// Calls written as <function=…> with <parameter=…> elements, as Qwen3-Coder does.
#include <algorithm>
#include <cmath>

#include "chat/json_text.h"
#include "chat/tool_call_body.h"

namespace hotset {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kCallOpen = "<tool_call>";
constexpr std::string_view kCallClose = "</tool_call>";
constexpr std::string_view kFunctionOpen = "<function=";
constexpr std::string_view kFunctionClose = "</function>";
constexpr std::string_view kParameterOpen = "<parameter=";
constexpr std::string_view kParameterClose = "</parameter>";
constexpr size_t kMaxNameBytes = 256;

// What may stand after a parameter.
TagMatch match_next_part(std::string_view text, size_t at) {
  TagMatch best = TagMatch::kNo;
  for (const std::string_view tag : {kParameterOpen, kFunctionClose, kCallClose}) {
    best = std::max(best, match_tag(text, at, tag));
  }
  return best;
}

std::vector<std::string> declared_types(const Json& schema) {
  std::vector<std::string> out;
  const auto add = [&](const Json& type) {
    if (type.is_string()) out.push_back(type.get<std::string>());
    if (!type.is_array()) return;
    for (const Json& one : type) {
      if (one.is_string()) out.push_back(one.get<std::string>());
    }
  };
  if (!schema.is_object()) return out;
  if (schema.contains("type")) add(schema["type"]);
  for (const char* choice : {"anyOf", "oneOf"}) {
    if (!schema.contains(choice) || !schema[choice].is_array()) continue;
    for (const Json& one : schema[choice]) {
      if (one.is_object() && one.contains("type")) add(one["type"]);
    }
  }
  return out;
}

bool fits(const Json& value, std::string_view type) {
  if (type == "integer") {
    return value.is_number_integer() ||
           (value.is_number_float() && std::floor(value.get<double>()) == value.get<double>());
  }
  if (type == "number") return value.is_number();
  if (type == "boolean") return value.is_boolean();
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  return type == "null" && value.is_null();
}

std::string lowered_trimmed(std::string_view raw) {
  const size_t begin = std::min(raw.find_first_not_of(" \t\r\n"), raw.size());
  const size_t end = raw.find_last_not_of(" \t\r\n");
  std::string out(end == std::string_view::npos ? "" : raw.substr(begin, end + 1 - begin));
  std::transform(out.begin(), out.end(), out.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

}  // namespace

TagMatch match_tag(std::string_view text, size_t at, std::string_view tag) {
  const std::string_view rest = text.substr(at, tag.size());
  if (rest == tag) return TagMatch::kYes;
  return at + rest.size() == text.size() && tag.starts_with(rest) ? TagMatch::kPartial
                                                                  : TagMatch::kNo;
}

size_t skip_blanks(std::string_view text, size_t at) {
  return std::min(text.find_first_not_of(" \t\r\n", at), text.size());
}

ParameterTypes::ParameterTypes(const Json& tools) {
  if (!tools.is_array()) return;
  for (const Json& tool : tools) {
    if (!tool.is_object()) continue;
    const bool wrapped = tool.contains("function") && tool["function"].is_object();
    const Json& function = wrapped ? tool["function"] : tool;
    if (!function.contains("name") || !function["name"].is_string()) continue;
    const auto parameters = function.find("parameters");
    if (parameters == function.end() || !parameters->is_object()) continue;
    const auto properties = parameters->find("properties");
    if (properties == parameters->end() || !properties->is_object()) continue;
    properties_[function["name"].get<std::string>()] = *properties;
  }
}

Json ParameterTypes::convert(std::string_view function, std::string_view parameter,
                             std::string_view raw) const {
  const auto known = properties_.find(std::string(function));
  if (known == properties_.end()) return std::string(raw);
  const auto schema = known->second.find(parameter);
  if (schema == known->second.end()) return std::string(raw);
  const auto types = declared_types(*schema);
  const auto declares = [&](std::string_view type) {
    return std::find(types.begin(), types.end(), type) != types.end();
  };
  const std::string word = lowered_trimmed(raw);
  if (declares("null") && (word == "null" || word == "none")) return nullptr;
  if (types.empty() || declares("string")) return std::string(raw);
  if (word == "null") return nullptr;
  if (declares("boolean") && (word == "true" || word == "false")) return word == "true";
  const auto parsed = parse_bounded_json(raw);
  for (const std::string& type : types) {
    if (parsed && fits(*parsed, type)) return *parsed;
  }
  return std::string(raw);
}

XmlScanner::Progress XmlScanner::advance(std::string_view text) {
  while (state_ != State::kDone) {
    const Progress progress = step(text);
    if (progress != Progress::kDone) return progress;
  }
  return Progress::kDone;
}

// kDone here means: this state is finished, go on with the next.
XmlScanner::Progress XmlScanner::step(std::string_view text) {
  switch (state_) {
    case State::kOpen:
      if (match_tag(text, 0, kCallOpen) == TagMatch::kYes) at_ = kCallOpen.size();
      state_ = State::kFunction;
      return Progress::kDone;
    case State::kFunction: {
      const size_t at = skip_blanks(text, at_);
      const TagMatch match = match_tag(text, at, kFunctionOpen);
      if (match == TagMatch::kPartial) return Progress::kNeedMore;
      if (match == TagMatch::kNo) return Progress::kMalformed;
      at_ = at + kFunctionOpen.size();
      state_ = State::kFunctionName;
      return Progress::kDone;
    }
    case State::kFunctionName:
      return read_name(text, function_, State::kBetween);
    case State::kBetween:
      return between(text);
    case State::kParameterName: {
      std::string name;
      const Progress progress = read_name(text, name, State::kValue);
      if (progress != Progress::kDone) return progress;
      parameters_.emplace_back(std::move(name), std::string());
      value_begin_ = at_;
      look_ = 0;
      return progress;
    }
    case State::kValue:
      return value(text);
    case State::kDone:
      break;
  }
  return Progress::kDone;
}

XmlScanner::Progress XmlScanner::read_name(std::string_view text, std::string& name, State next) {
  const std::string_view rest = text.substr(at_, kMaxNameBytes + 1);
  const size_t close = rest.find_first_of("><\n");
  if (close == std::string_view::npos) {
    return rest.size() > kMaxNameBytes ? Progress::kMalformed : Progress::kNeedMore;
  }
  if (rest[close] != '>' || close == 0) return Progress::kMalformed;
  name = rest.substr(0, close);
  at_ += close + 1;
  state_ = next;
  return Progress::kDone;
}

XmlScanner::Progress XmlScanner::between(std::string_view text) {
  at_ = skip_blanks(text, at_);
  if (match_tag(text, at_, kParameterOpen) == TagMatch::kYes) {
    at_ += kParameterOpen.size();
    state_ = State::kParameterName;
    return Progress::kDone;
  }
  const bool closes = match_tag(text, at_, kFunctionClose) == TagMatch::kYes;
  if (closes || match_tag(text, at_, kCallClose) == TagMatch::kYes) {
    if (closes) at_ += kFunctionClose.size();
    state_ = State::kDone;
    return Progress::kDone;
  }
  return match_next_part(text, at_) == TagMatch::kPartial ? Progress::kNeedMore
                                                          : Progress::kMalformed;
}

XmlScanner::Progress XmlScanner::value(std::string_view text) {
  while (true) {
    const size_t close = text.find(kParameterClose, at_);
    if (close == std::string_view::npos) {
      const size_t keep = kParameterClose.size() - 1;
      at_ = std::max(at_, text.size() > keep ? text.size() - keep : 0);
      return Progress::kNeedMore;
    }
    at_ = close;
    look_ = skip_blanks(text, std::max(look_, close + kParameterClose.size()));
    const TagMatch match = match_next_part(text, look_);
    if (match == TagMatch::kPartial) return Progress::kNeedMore;
    if (match == TagMatch::kYes) break;
    at_ = close + 1;
    look_ = 0;
  }
  std::string_view raw = text.substr(value_begin_, at_ - value_begin_);
  if (raw.starts_with('\n')) raw.remove_prefix(1);
  if (raw.ends_with('\n')) raw.remove_suffix(1);
  parameters_.back().second = raw;
  at_ = look_;
  state_ = State::kBetween;
  return Progress::kDone;
}

ToolCall XmlScanner::take(const ParameterTypes& types) const {
  Json arguments = Json::object();
  for (const auto& [name, raw] : parameters_) arguments[name] = types.convert(function_, name, raw);
  return {function_, dump_json(arguments)};
}

}  // namespace hotset
