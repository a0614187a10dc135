// SPDX-License-Identifier: Apache-2.0
#include "support/plain_dialect.h"

#include <utility>

namespace hotset::test {
namespace {

class PlainParser : public AnswerParser {
 public:
  PlainParser(bool in_reasoning, bool parses_tools)
      : in_reasoning_(in_reasoning), parses_tools_(parses_tools) {}

  OutputPiece push(std::string_view text) override {
    OutputPiece piece;
    text_ += text;
    if (in_reasoning_) {
      const size_t end = text_.find("</think>");
      if (end == std::string::npos) {
        piece.reasoning = std::exchange(text_, {});
        return piece;
      }
      piece.reasoning = text_.substr(0, end);
      text_.erase(0, end + 8);
      in_reasoning_ = false;
    }
    if (parses_tools_) return piece;  // a call may follow: decided at the end
    piece.content = std::exchange(text_, {});
    return piece;
  }

  OutputPiece finish() override {
    OutputPiece piece;
    const size_t at = text_.find("CALL ");
    if (!parses_tools_ || at == std::string::npos) {
      piece.content = std::exchange(text_, {});
      return piece;
    }
    piece.content = text_.substr(0, at);
    const size_t name_end = text_.find(' ', at + 5);
    const size_t end = text_.find(';', at);
    piece.tool_calls.push_back({0, "call_1", text_.substr(at + 5, name_end - at - 5),
                                text_.substr(name_end + 1, end - name_end - 1)});
    return piece;
  }

 private:
  bool in_reasoning_;
  bool parses_tools_;
  std::string text_;
};

}  // namespace

Result<PromptText> PlainDialect::render(const Json& messages, const Json&, const Json&) const {
  PromptText prompt;
  prompt.opens_reasoning = starts_in_reasoning;
  const auto add = [&prompt](const std::string& text, bool is_trusted) {
    prompt.text += text;
    prompt.segments.emplace_back(text.size(), is_trusted);
  };
  for (const Json& message : messages) {
    if (is_text(message["content"], "raise")) return fail("the template refused this conversation");
    add("<|im_start|>" + message["role"].get<std::string>() + "\n", true);
    add(message["content"].get<std::string>(), false);
    add("<|im_end|>\n", true);
  }
  add("<|im_start|>assistant\n", true);
  return prompt;
}

std::unique_ptr<AnswerParser> PlainDialect::new_parser(const PromptText& prompt,
                                                       const Json& tools) const {
  return std::make_unique<PlainParser>(prompt.opens_reasoning, !tools.empty());
}

}  // namespace hotset::test
