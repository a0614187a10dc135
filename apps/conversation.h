// SPDX-License-Identifier: Apache-2.0
// The messages of a chat and the token ids they came to. The ids of the last prompt and answer are
// remembered as they were, so that the next prompt continues from exactly those and the engine has
// to compute only what is new.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "server/dialect.h"
#include "tokenizer/tokenizer.h"

namespace hotset {

class Conversation {
 public:
  // Both outlive the conversation.
  Conversation(const Dialect& dialect, const Tokenizer& tokenizer, std::string system);

  void reset();
  void set_system(std::string system);

  // Appends the user's message; gives the ids to generate from.
  [[nodiscard]] Result<std::vector<int32_t>> ask(const std::string& text);
  // A parser for the answer to what was asked last.
  [[nodiscard]] std::unique_ptr<AnswerParser> new_parser() const;
  // Appends the answer: its parts, and the ids that were generated (end-of-text id left out).
  void add_answer(const std::string& content, const std::string& reasoning,
                  const std::vector<int32_t>& ids);
  // Forgets the last question, after an error.
  void take_back();

 private:
  Result<std::vector<int32_t>> tokenize(const PromptText& prompt) const;

  const Dialect& dialect_;
  const Tokenizer& tokenizer_;
  std::string system_;
  Json messages_ = Json::array();  // without the system message
  PromptText prompt_;              // of the last question
  std::vector<int32_t> prompt_ids_;
  std::string known_text_;          // the last prompt and answer, as text …
  std::vector<int32_t> known_ids_;  // … and as the ids that the engine has seen
};

}  // namespace hotset
