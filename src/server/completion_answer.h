// SPDX-License-Identifier: Apache-2.0
// The answer to /v1/completions: plain text, in text_completion events or one text_completion.
#pragma once

#include <memory>
#include <string>

#include "server/answer.h"
#include "server/answer_info.h"
#include "server/text_stream.h"

namespace hotset {

class CompletionAnswer : public Answer {
 public:
  CompletionAnswer(AnswerInfo info, std::unique_ptr<TextStream> text, const Tokenizer& tokenizer);

  bool is_stream() const override { return info_.stream.stream; }
  void set_wakeup(std::function<void()> wakeup) override { text_->set_wakeup(std::move(wakeup)); }
  AnswerBytes advance() override;
  void cancel() override { text_->cancel(); }

 private:
  void take_logprobs(const TokenEvent& event);
  AnswerBytes finish(const TextPiece& piece, std::string streamed);
  Json body(std::string text, Json finish_reason);
  Json logprobs_or_null();

  AnswerInfo info_;
  std::unique_ptr<TextStream> text_;
  const Tokenizer& tokenizer_;
  std::string whole_text_;  // of a non-stream answer
  Json tokens_ = Json::array(), token_logprobs_ = Json::array();
  Json top_logprobs_ = Json::array(), text_offsets_ = Json::array();
  int64_t num_text_bytes_ = 0;  // of all tokens so far
};

}  // namespace hotset
