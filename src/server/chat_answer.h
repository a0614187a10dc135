// SPDX-License-Identifier: Apache-2.0
// The answer to a chat request: text pieces go through the dialect's parser and come out as
// chat.completion.chunk events, or are gathered into one chat.completion.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/dialect.h"
#include "server/generated_answer.h"

namespace hotset {

class ChatAnswer : public GeneratedAnswer {
 public:
  // `parsers`: one a choice.
  ChatAnswer(AnswerInfo info, Choices choices, std::vector<std::unique_ptr<AnswerParser>> parsers,
             const Tokenizer& tokenizer, bool include_reasoning);

 private:
  struct ToolCall {
    std::string id, name, arguments;
  };
  struct Choice {
    std::unique_ptr<AnswerParser> parser;
    bool has_tool_calls = false;
    Json logprobs = Json::array();   // of tokens whose text has not been sent yet
    std::string content, reasoning;  // of a non-stream answer, as are the calls
    std::vector<ToolCall> tool_calls;
    std::string finish_reason;
  };

  void begin(std::string& out) override;
  void take(size_t index, const TextPiece& piece, std::string& out) override;
  Json whole_answer() override;
  int64_t num_reasoning_tokens() const override { return num_reasoning_tokens_; }
  const char* event_object() const override { return "chat.completion.chunk"; }

  void emit(size_t index, OutputPiece piece, std::string& out);
  void emit_delta(size_t index, Json delta, std::string& out);
  void end_choice(size_t index, const TextPiece& piece, std::string& out);
  static void gather(Choice& choice, OutputPiece piece);
  Json whole_choice(size_t index) const;

  std::vector<Choice> parts_;  // one a choice
  const Tokenizer& tokenizer_;
  bool include_reasoning_;
  int64_t num_reasoning_tokens_ = 0;
};

}  // namespace hotset
