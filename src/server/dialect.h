// SPDX-License-Identifier: Apache-2.0
// How a model talks: messages become a prompt, generated text becomes reasoning, content and tool
// calls. The server's answers are written against this small face; the model's own template and
// parsers stand behind it (server/chat_dialect.h), and tests put a plain one there.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "server/strict_json.h"

namespace hotset {

// One streamed piece of a tool call. The first of a call carries id and name.
struct ToolCallPiece {
  size_t index = 0;
  std::string id;
  std::string name;
  std::string arguments;  // the next characters of the JSON text
};

struct OutputPiece {
  std::string reasoning;
  std::string content;
  std::vector<ToolCallPiece> tool_calls;

  [[nodiscard]] bool empty() const {
    return reasoning.empty() && content.empty() && tool_calls.empty();
  }
};

// Sorts one answer's text as it streams; one object an answer.
class AnswerParser {
 public:
  virtual ~AnswerParser() = default;
  [[nodiscard]] virtual OutputPiece push(std::string_view text) = 0;
  // No more text comes: what was held back.
  [[nodiscard]] virtual OutputPiece finish() = 0;
};

struct PromptText {
  std::string text;
  std::vector<std::pair<size_t, bool>> segments;  // length in bytes, is trusted; in a row
  bool opens_reasoning = false;                   // the answer begins inside a <think>
};

// Thread-safe: const after loading.
class Dialect {
 public:
  virtual ~Dialect() = default;
  // `messages`: as server/chat_request.h normalises them. `tools`: an array, empty for none.
  // `extra`: further template variables of the request, an object.
  [[nodiscard]] virtual Result<PromptText> render(const Json& messages, const Json& tools,
                                                  const Json& extra) const = 0;
  [[nodiscard]] virtual std::unique_ptr<AnswerParser> new_parser(const PromptText& prompt,
                                                                 const Json& tools) const = 0;
};

}  // namespace hotset
