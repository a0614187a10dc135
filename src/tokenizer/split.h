// SPDX-License-Identifier: Apache-2.0
// Cuts text into the pieces that byte-pair merging works on. The known Qwen pattern has a scanner,
// any other one a bounded regex; which one runs is decided once, at load.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "tokenizer/char_class.h"
#include "tokenizer/qwen_scanner.h"
#include "tokenizer/split_regex.h"

namespace hotset {

class Splitter {
 public:
  // No pattern: every text is one piece.
  static Result<Splitter> compile(std::optional<std::string_view> pattern);

  // Calls on_piece(piece) for the non-empty pieces in order, until one returns false; together they
  // are the text.
  template <typename OnPiece>
  Status for_each_piece(std::string_view text, OnPiece&& on_piece) const {
    if (text.empty()) return {};
    if (classes_ != nullptr) {
      for (size_t at = 0, end; at < text.size(); at = end) {
        end = qwen_piece_end(text, at, *classes_);
        if (!on_piece(text.substr(at, end - at))) break;
      }
    } else if (regex_) {
      SplitRegex::Walk walk(*regex_, text);
      for (size_t at = 0; at < text.size();) {
        HS_ASSIGN_OR_RETURN(const size_t end, walk.piece_end(at));
        if (!on_piece(text.substr(at, end - at))) break;
        at = end;
      }
    } else {
      (void)on_piece(text);
    }
    return {};
  }

 private:
  std::unique_ptr<const CharClasses> classes_;  // set: the Qwen scanner
  std::optional<SplitRegex> regex_;
};

}  // namespace hotset
