// SPDX-License-Identifier: Apache-2.0
// Token ids to text as they come out of a model. A character may be spread over several tokens, so
// bytes that more bytes could complete are held back. All pushes and the finish, put in a row,
// equal the whole byte string with its invalid parts replaced by U+FFFD (Python: errors="replace").
#pragma once

#include <cstdint>
#include <string>

#include "tokenizer/tokenizer.h"

namespace hotset {

// For one sequence; the tokenizer must outlive it.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer& tokenizer, bool skip_special = false)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}

  // The text that became complete with this token; often a word, sometimes nothing.
  [[nodiscard]] std::string push(int32_t id);

  // What was held back, as U+FFFD: no more tokens come. The object can be used afresh then.
  [[nodiscard]] std::string finish();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::string held_;  // at most 3 bytes: a cut character
};

}  // namespace hotset
