// SPDX-License-Identifier: Apache-2.0
// Template source into tokens: text, statement tags, print tags; comments and raw blocks are
// resolved here, and so is white space (trim_blocks and lstrip_blocks are on, as chat templates
// expect, and '-' and '+' at a tag's edges have their Jinja meaning).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "chat/jinja/value.h"

namespace hotset::jinja {

enum class TokenKind : uint8_t {
  kText,        // value: the literal text
  kBlockBegin,  // {%
  kBlockEnd,    // %}
  kPrintBegin,  // {{
  kPrintEnd,    // }}
  kName,        // value: the identifier
  kString,      // value: unescaped
  kInteger,     // integer
  kFloat,       // number
  kOperator,    // value: "+", "==", "(" …
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;
  std::string value;
  Int integer = 0;
  double number = 0;
};

// Always ends with a kEnd token. Errors name the line.
[[nodiscard]] Result<std::vector<Token>> tokenize_template(std::string_view source);

[[nodiscard]] std::string describe(const Token& token);

}  // namespace hotset::jinja
