// SPDX-License-Identifier: Apache-2.0
// The answer to a chat request: text pieces go through the dialect's parser and come out as
// chat.completion.chunk events, or are gathered into one chat.completion.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/answer.h"
#include "server/answer_info.h"
#include "server/dialect.h"
#include "server/text_stream.h"

namespace hotset {

class ChatAnswer : public Answer {
 public:
  ChatAnswer(AnswerInfo info, std::unique_ptr<TextStream> text,
             std::unique_ptr<AnswerParser> parser, const Tokenizer& tokenizer,
             bool include_reasoning);

  bool is_stream() const override { return info_.stream.stream; }
  void set_wakeup(std::function<void()> wakeup) override { text_->set_wakeup(std::move(wakeup)); }
  AnswerBytes advance() override;
  void cancel() override { text_->cancel(); }

 private:
  void take(const TextPiece& piece, std::string& out);
  void emit(OutputPiece piece, std::string& out);
  void emit_delta(Json delta, std::string& out);
  void gather(OutputPiece piece);
  AnswerBytes finish(const TextPiece& piece, std::string streamed);
  std::string finish_stream(const TextPiece& piece) const;
  Json whole_answer(const TextPiece& piece) const;
  Json chunk(Json choices) const;
  Json logprobs_or_null();
  std::string finish_reason(const TextPiece& piece) const;

  struct ToolCall {
    std::string id, name, arguments;
  };

  AnswerInfo info_;
  std::unique_ptr<TextStream> text_;
  std::unique_ptr<AnswerParser> parser_;
  const Tokenizer& tokenizer_;
  bool include_reasoning_;
  bool has_begun_ = false;
  int64_t num_reasoning_tokens_ = 0;
  bool has_tool_calls_ = false;
  Json logprobs_ = Json::array();    // of tokens whose text has not been sent yet
  std::string content_, reasoning_;  // of a non-stream answer
  std::vector<ToolCall> tool_calls_;
};

}  // namespace hotset
