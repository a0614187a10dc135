// SPDX-License-Identifier: Apache-2.0
// The inside of one tool call, per format; shared by the streaming parser and these formats' files.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace hotset {

struct ToolCall {
  std::string name;
  std::string arguments;  // JSON object as text
};

enum class TagMatch { kNo, kPartial, kYes };
// Whether `text` continues with `tag` at `at`; kPartial when the text ends inside of it.
[[nodiscard]] TagMatch match_tag(std::string_view text, size_t at, std::string_view tag);
[[nodiscard]] size_t skip_blanks(std::string_view text, size_t at);

// {"name": "f", "arguments": {…}}: the arguments keep the model's own spelling.
[[nodiscard]] std::optional<ToolCall> parse_hermes_body(std::string_view body);

// Finds the end of a Hermes call: the first closing tag outside of a JSON string. Resumes where the
// last call stopped.
class HermesScanner {
 public:
  // Offset of the closing tag, npos when it has not come yet. `text` grows between calls.
  size_t find_end(std::string_view text);

 private:
  size_t at_ = 0;
  bool in_string_ = false;
};

// Declared types of the functions' parameters.
class ParameterTypes {
 public:
  explicit ParameterTypes(const nlohmann::ordered_json& tools);
  // A parameter's raw text as the JSON its schema asks for; a string where that fails.
  [[nodiscard]] nlohmann::ordered_json convert(std::string_view function,
                                               std::string_view parameter,
                                               std::string_view raw) const;

 private:
  std::unordered_map<std::string, nlohmann::ordered_json> properties_;  // by function
};

// Walks one XML-style call as its text grows. A closing </parameter> counts only when a tag of the
// call follows it, so values may contain such text themselves.
class XmlScanner {
 public:
  enum class Progress { kNeedMore, kDone, kMalformed };
  Progress advance(std::string_view text);  // `text` starts with the call and grows between calls
  [[nodiscard]] size_t end() const { return at_; }  // after kDone: where the call ends
  [[nodiscard]] ToolCall take(const ParameterTypes& types) const;

 private:
  enum class State { kOpen, kFunction, kFunctionName, kBetween, kParameterName, kValue, kDone };
  Progress step(std::string_view text);
  Progress read_name(std::string_view text, std::string& name, State next);
  Progress between(std::string_view text);
  Progress value(std::string_view text);

  State state_ = State::kOpen;
  size_t at_ = 0;
  size_t value_begin_ = 0;
  size_t look_ = 0;  // in kValue: how far the look after </parameter> got; 0: none open
  std::string function_;
  std::vector<std::pair<std::string, std::string>> parameters_;
};

}  // namespace hotset
