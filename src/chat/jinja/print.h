// SPDX-License-Identifier: Apache-2.0
// Values as text, in Python's words: str(), repr() and json.dumps() as HF's tojson filter calls it.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "chat/jinja/value.h"

namespace hotset::jinja {

struct JsonStyle {
  std::optional<int> indent;  // none: one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool ensure_ascii = false;
  bool sort_keys = false;
};

// str(value); undefined prints nothing, None prints "None".
[[nodiscard]] Result<Text> to_text(const Value& value, Budget& budget);
[[nodiscard]] Result<Text> to_repr(const Value& value, Budget& budget);
// When any part of the value came from outside, all of the JSON counts as from outside.
[[nodiscard]] Result<Text> to_json(const Value& value, const JsonStyle& style, Budget& budget);

[[nodiscard]] std::string int_to_string(Int n);
[[nodiscard]] std::string float_to_string(double d);  // the shortest digits that read back, as repr

}  // namespace hotset::jinja
