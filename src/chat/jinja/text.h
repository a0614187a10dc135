// SPDX-License-Identifier: Apache-2.0
// Strings that remember where each byte came from. A Text is an immutable, shared UTF-8 string with
// the list of byte ranges that came from outside (messages, tools); slicing, joining and replacing
// keep the marks, so that a rendered prompt can say which parts must never become special tokens.
// Positions seen by templates count code points, as in Python; ranges here count bytes.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "chat/jinja/budget.h"

namespace hotset::jinja {

// Bytes [begin, end) of a Text that came from outside. Sorted, disjoint, never adjacent.
struct Span {
  size_t begin = 0;
  size_t end = 0;
};

class Text {
 public:
  Text() = default;  // ""
  static Text trusted(std::string_view bytes, Budget* budget = nullptr);
  static Text untrusted(std::string_view bytes, Budget* budget);
  Text(std::string bytes, std::vector<Span> spans, Budget* budget);

  [[nodiscard]] std::string_view view() const {
    return rep_ ? std::string_view(rep_->bytes) : std::string_view();
  }
  [[nodiscard]] size_t num_bytes() const { return view().size(); }
  [[nodiscard]] size_t num_chars() const { return rep_ ? rep_->num_chars : 0; }
  [[nodiscard]] bool empty() const { return view().empty(); }
  [[nodiscard]] const std::vector<Span>& spans() const;
  [[nodiscard]] bool any_untrusted() const { return rep_ && !rep_->spans.empty(); }
  [[nodiscard]] bool is_ascii() const { return num_chars() == num_bytes(); }

  // Bytes [begin, end), marks kept. The cuts fall between characters.
  [[nodiscard]] Text slice(size_t begin, size_t end, Budget* budget) const;
  // Where character `index` starts (num_bytes() for index >= num_chars()).
  [[nodiscard]] size_t byte_of_char(size_t index) const;
  [[nodiscard]] size_t char_of_byte(size_t offset) const;

 private:
  struct Rep {
    std::string bytes;
    std::vector<Span> spans;
    size_t num_chars = 0;
    Charge charge;
  };
  std::shared_ptr<const Rep> rep_;  // null: the empty text
};

// Collects a Text piece by piece. Stops taking bytes once the budget or max_bytes is exceeded.
class TextBuilder {
 public:
  explicit TextBuilder(Budget* budget, size_t max_bytes = SIZE_MAX)
      : budget_(budget), max_bytes_(max_bytes), charge_(budget, 0) {}

  void append(std::string_view bytes, bool untrusted);
  void append(const Text& text) { append(text, 0, text.num_bytes()); }
  void append(const Text& text, size_t begin, size_t end);

  [[nodiscard]] size_t size() const { return bytes_.size(); }
  [[nodiscard]] const std::string& bytes() const { return bytes_; }
  [[nodiscard]] const std::vector<Span>& spans() const { return spans_; }
  void mark_all_untrusted();  // when any byte is: one range instead of many
  [[nodiscard]] Text take();

 private:
  void grow(size_t bytes_needed);

  Budget* budget_;
  size_t max_bytes_;
  std::string bytes_;
  std::vector<Span> spans_;
  Charge charge_;
};

// Byte length of the UTF-8 character that starts with `lead`.
[[nodiscard]] inline size_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}
[[nodiscard]] char32_t decode_char(std::string_view bytes, size_t at);
[[nodiscard]] bool is_space(char32_t c);  // Python's str.isspace

// First occurrence at or after `from`, npos if none. Linear in the text's length.
[[nodiscard]] size_t find_bytes(std::string_view text, std::string_view needle, size_t from);

}  // namespace hotset::jinja
