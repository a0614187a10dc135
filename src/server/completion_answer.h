// SPDX-License-Identifier: Apache-2.0
// The answer to /v1/completions: plain text, in text_completion events or one text_completion.
#pragma once

#include <string>
#include <vector>

#include "server/generated_answer.h"

namespace hotset {

class CompletionAnswer : public GeneratedAnswer {
 public:
  // `echo`: text that every choice begins with (the prompt); empty for none.
  CompletionAnswer(AnswerInfo info, Choices choices, const Tokenizer& tokenizer, std::string echo);

 private:
  struct Choice {
    std::string text;  // of a non-stream answer
    Json tokens = Json::array(), token_logprobs = Json::array();
    Json top_logprobs = Json::array(), text_offsets = Json::array();
    int64_t num_text_bytes = 0;  // of all tokens so far
    std::string finish_reason;
  };

  void begin(std::string& out) override;
  void take(size_t index, const TextPiece& piece, std::string& out) override;
  Json whole_answer() override;
  const char* event_object() const override { return "text_completion"; }

  void take_logprobs(Choice& choice, const TokenEvent& event) const;
  // Takes the logprobs that wait along.
  Json choice_json(size_t index, std::string text, Json finish_reason);

  std::vector<Choice> parts_;  // one a choice
  const Tokenizer& tokenizer_;
  std::string echo_;
};

}  // namespace hotset
