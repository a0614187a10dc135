// SPDX-License-Identifier: Apache-2.0
// The hold-back rule is one line: keep the tail that is a proper prefix of some character.
#include "tokenizer/detokenizer.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/utf8.h"

namespace hotset {
namespace {

// Bytes at the end of `text` that more bytes could complete.
size_t incomplete_tail(std::string_view text) {
  for (size_t length = 1; length <= std::min<size_t>(3, text.size()); ++length) {
    if (utf8_is_incomplete(text.substr(text.size() - length))) return length;
  }
  return 0;
}

}  // namespace

std::string Detokenizer::push(int32_t id) {
  if (skip_special_ && tokenizer_->is_special(id)) return {};
  held_ += tokenizer_->token_bytes(id);
  const size_t complete = held_.size() - incomplete_tail(held_);
  std::string text = utf8_replace_invalid(std::string_view(held_).substr(0, complete));
  held_.erase(0, complete);
  return text;
}

std::string Detokenizer::finish() {
  return utf8_replace_invalid(std::exchange(held_, {}));
}

}  // namespace hotset
