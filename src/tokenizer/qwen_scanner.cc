// SPDX-License-Identifier: Apache-2.0
// One function an alternative of the pattern, tried in the pattern's order.
#include "tokenizer/qwen_scanner.h"

#include <cstdint>

namespace hotset {
namespace {

struct Char {
  char32_t code;
  size_t end;  // offset behind it
  CharClass kind;
};

bool is_newline(char32_t c) {
  return c == '\r' || c == '\n';
}

class Scanner {
 public:
  Scanner(std::string_view text, const CharClasses& classes) : text_(text), classes_(classes) {}

  [[nodiscard]] size_t piece_end(size_t at) const {
    const Char c = char_at(at);
    if (c.code == '\'') {
      if (const size_t end = contraction_end(c.end); end != 0) return end;
    }
    if (c.kind == CharClass::kLetter) return run_end(c.end, CharClass::kLetter);
    if (c.kind == CharClass::kNumber) return c.end;
    if (c.end < text_.size()) {
      const CharClass next = char_at(c.end).kind;
      if (next == CharClass::kLetter && !is_newline(c.code)) return run_end(c.end, next);
      if (next == CharClass::kOther && c.code == ' ') return symbols_end(c.end);
    }
    if (c.kind == CharClass::kOther) return symbols_end(c.end);
    return whitespace_end(at);
  }

 private:
  [[nodiscard]] uint32_t byte(size_t at) const { return static_cast<uint8_t>(text_[at]); }

  [[nodiscard]] Char char_at(size_t at) const {
    const uint32_t lead = byte(at);
    char32_t code = lead;
    size_t end = at + 1;
    if (lead >= 0xf0) {
      code = ((lead & 7u) << 18) | (tail(at + 1) << 12) | (tail(at + 2) << 6) | tail(at + 3);
      end = at + 4;
    } else if (lead >= 0xe0) {
      code = ((lead & 15u) << 12) | (tail(at + 1) << 6) | tail(at + 2);
      end = at + 3;
    } else if (lead >= 0x80) {
      code = ((lead & 31u) << 6) | tail(at + 1);
      end = at + 2;
    }
    return {code, end, classes_.of(code)};
  }
  [[nodiscard]] uint32_t tail(size_t at) const { return byte(at) & 0x3fu; }

  // (?i:'s|'t|'re|'ve|'m|'ll|'d) behind the apostrophe; 0 if there is none.
  [[nodiscard]] size_t contraction_end(size_t at) const {
    const auto lower = [&](size_t i) -> uint32_t {
      return i < text_.size() ? (byte(i) < 0x80 ? byte(i) | 0x20u : byte(i)) : 0;
    };
    const uint32_t first = lower(at), second = lower(at + 1);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return at + 1;
    if ((first == 'r' || first == 'v') && second == 'e') return at + 2;
    if (first == 'l' && second == 'l') return at + 2;
    if (text_.substr(at).starts_with("\u017f")) return at + 2;  // long s folds to s
    return 0;
  }

  [[nodiscard]] size_t run_end(size_t at, CharClass kind) const {
    while (at < text_.size()) {
      const Char c = char_at(at);
      if (c.kind != kind) break;
      at = c.end;
    }
    return at;
  }

  // [^\s\p{L}\p{N}]+[\r\n]* behind its first character.
  [[nodiscard]] size_t symbols_end(size_t at) const {
    at = run_end(at, CharClass::kOther);
    while (at < text_.size() && is_newline(byte(at))) ++at;
    return at;
  }

  // \s*[\r\n]+ | \s+(?!\S) | \s+ : up to the last newline of the run; else the run, without its
  // last character when text follows and something is left then.
  [[nodiscard]] size_t whitespace_end(size_t begin) const {
    size_t at = begin, last = begin, behind_newline = 0;
    while (at < text_.size()) {
      const Char c = char_at(at);
      if (c.kind != CharClass::kSpace) break;
      last = at;
      at = c.end;
      if (is_newline(c.code)) behind_newline = at;
    }
    if (behind_newline != 0) return behind_newline;
    return at == text_.size() || last == begin ? at : last;
  }

  std::string_view text_;
  const CharClasses& classes_;
};

}  // namespace

size_t qwen_piece_end(std::string_view text, size_t at, const CharClasses& classes) {
  return Scanner(text, classes).piece_end(at);
}

}  // namespace hotset
