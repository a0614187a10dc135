// SPDX-License-Identifier: Apache-2.0
// The lexer walks the source once. A tag's own marks decide how much white space before and after
// it survives; brackets are balanced here so that "}}" inside a dict literal does not end a tag.
#include "chat/jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "base/utf8.h"

namespace hotset::jinja {
namespace {

constexpr std::array<std::string_view, 26> kOperators = {
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
    "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_tag_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      out += '\n';
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_newlines(source)) {}

  Result<std::vector<Token>> run() {
    while (at_ < source_.size()) HS_RETURN_IF_ERROR(next_part());
    push(TokenKind::kEnd, {});
    return std::move(tokens_);
  }

 private:
  [[nodiscard]] bool starts(std::string_view what, size_t at) const {
    return std::string_view(source_).substr(at, what.size()) == what;
  }
  [[nodiscard]] tl::unexpected<Error> error(std::string_view what) const {
    return fail(fmt::format("line {}: {}", line_, what));
  }
  void push(TokenKind kind, std::string value) {
    Token token;
    token.kind = kind;
    token.line = line_;
    token.value = std::move(value);
    tokens_.push_back(std::move(token));
  }
  void advance_to(size_t at) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at), '\n'));
    line_starting_ = at > 0 && source_[at - 1] == '\n';
    at_ = at;
  }
  void skip_spaces() {
    size_t at = at_;
    while (at < source_.size() && is_tag_space(source_[at])) ++at;
    advance_to(at);
  }

  Status next_part();
  void push_text(size_t end, char mark, bool is_print);
  void close_tag(char mark, bool trims_newline);
  Status comment();
  Result<bool> raw_block(size_t begin);
  Status tag(bool is_print);
  Result<bool> tag_end(bool is_print);
  Status token_in_tag();
  Status string_token(char quote);
  Status escape(std::string& out, size_t& at);
  Status number_token();
  Status operator_token();

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<char> brackets_;
  std::vector<Token> tokens_;
};

// The text before a tag: '-' strips all white space, else a statement or comment tag that is alone
// on its line loses its indentation ('+' keeps it).
void Lexer::push_text(size_t end, char mark, bool is_print) {
  std::string text = source_.substr(at_, end - at_);
  if (mark == '-') {
    size_t keep = text.size();
    while (keep > 0 && is_tag_space(text[keep - 1])) --keep;
    text.resize(keep);
  } else if (mark != '+' && !is_print) {
    const size_t newline = text.rfind('\n');
    const size_t line_begin = newline == std::string::npos ? 0 : newline + 1;
    const bool blank = std::all_of(text.begin() + static_cast<std::ptrdiff_t>(line_begin),
                                   text.end(), is_tag_space);
    if (blank && (line_begin > 0 || line_starting_)) text.resize(line_begin);
  }
  if (!text.empty()) push(TokenKind::kText, std::move(text));
  advance_to(end);
}

// After a tag's closing brackets: '-' eats all white space, else one newline goes.
void Lexer::close_tag(char mark, bool trims_newline) {
  if (mark == '-') {
    skip_spaces();
  } else if (mark != '+' && trims_newline && at_ < source_.size() && source_[at_] == '\n') {
    advance_to(at_ + 1);
  }
}

Status Lexer::next_part() {
  size_t begin = at_;
  while (true) {
    begin = source_.find('{', begin);
    if (begin == std::string::npos) {
      push(TokenKind::kText, source_.substr(at_));
      advance_to(source_.size());
      return {};
    }
    if (starts("{{", begin) || starts("{%", begin) || starts("{#", begin)) break;
    ++begin;
  }
  const char kind = source_[begin + 1];
  const char next = begin + 2 < source_.size() ? source_[begin + 2] : '\0';
  const char mark = next == '-' || next == '+' ? next : '\0';
  if (kind == '%') {
    HS_ASSIGN_OR_RETURN(const bool raw, raw_block(begin));
    if (raw) return {};
  }
  push_text(begin, mark, kind == '{');
  advance_to(begin + 2 + (mark != '\0' ? 1 : 0));
  return kind == '#' ? comment() : tag(kind == '{');
}

Status Lexer::comment() {
  const size_t end = source_.find("#}", at_);
  if (end == std::string::npos) return error("missing end of comment tag");
  const char mark = end > at_ ? source_[end - 1] : '\0';
  advance_to(end + 2);
  close_tag(mark == '-' || mark == '+' ? mark : '\0', true);
  return {};
}

// {% raw %} … {% endraw %}: everything between is text.
Result<bool> Lexer::raw_block(size_t begin) {
  const auto spaces = [&](size_t at) {
    while (at < source_.size() && is_tag_space(source_[at])) ++at;
    return at;
  };
  size_t at = begin + 2;
  const char open_mark = at < source_.size() ? source_[at] : '\0';
  if (open_mark == '-' || open_mark == '+') ++at;
  at = spaces(at);
  if (!starts("raw", at)) return false;
  at = spaces(at + 3);
  const bool strips = starts("-%}", at);
  if (!strips && !starts("%}", at)) return false;
  push_text(begin, open_mark, false);
  advance_to(at + (strips ? 3 : 2));
  if (strips) skip_spaces();
  for (size_t end = source_.find("{%", at_); end != std::string::npos;
       end = source_.find("{%", end + 2)) {
    size_t tail = end + 2;
    const char mark = tail < source_.size() ? source_[tail] : '\0';
    if (mark == '-' || mark == '+') ++tail;
    tail = spaces(tail);
    if (!starts("endraw", tail)) continue;
    tail = spaces(tail + 6);
    const char close = tail < source_.size() ? source_[tail] : '\0';
    if (close == '-' || close == '+') ++tail;
    if (!starts("%}", tail)) continue;
    push_text(end, mark, false);
    advance_to(tail + 2);
    close_tag(close, true);
    return true;
  }
  return error("missing end of raw directive");
}

Status Lexer::tag(bool is_print) {
  push(is_print ? TokenKind::kPrintBegin : TokenKind::kBlockBegin, {});
  brackets_.clear();
  while (true) {
    skip_spaces();
    if (at_ >= source_.size()) return error("unexpected end of template inside a tag");
    HS_ASSIGN_OR_RETURN(const bool ended, tag_end(is_print));
    if (ended) return {};
    HS_RETURN_IF_ERROR(token_in_tag());
  }
}

Result<bool> Lexer::tag_end(bool is_print) {
  if (!brackets_.empty()) return false;
  const std::string_view close = is_print ? "}}" : "%}";
  const char first = source_[at_];
  const bool marked = first == '-' || (first == '+' && !is_print);
  if (!starts(close, at_ + (marked ? 1 : 0))) return false;
  push(is_print ? TokenKind::kPrintEnd : TokenKind::kBlockEnd, {});
  advance_to(at_ + (marked ? 3 : 2));
  close_tag(marked ? first : '\0', !is_print);
  return true;
}

Status Lexer::token_in_tag() {
  const char c = source_[at_];
  if (c == '\'' || c == '"') return string_token(c);
  if (is_digit(c)) return number_token();
  if (is_name_start(c)) {
    size_t end = at_ + 1;
    while (end < source_.size() && (is_name_start(source_[end]) || is_digit(source_[end]))) ++end;
    push(TokenKind::kName, source_.substr(at_, end - at_));
    advance_to(end);
    return {};
  }
  return operator_token();
}

Status Lexer::operator_token() {
  for (const std::string_view op : kOperators) {
    if (!starts(op, at_)) continue;
    const char c = op[0];
    if (c == '(' || c == '[' || c == '{') {
      brackets_.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
    } else if (c == ')' || c == ']' || c == '}') {
      if (brackets_.empty()) return error(fmt::format("unexpected '{}'", c));
      if (brackets_.back() != c) {
        return error(fmt::format("unexpected '{}', expected '{}'", c, brackets_.back()));
      }
      brackets_.pop_back();
    }
    push(TokenKind::kOperator, std::string(op));
    advance_to(at_ + op.size());
    return {};
  }
  const std::string_view rest = std::string_view(source_).substr(at_);
  return error(fmt::format("unexpected char '{}'", rest.substr(0, utf8_length(rest[0]))));
}

Status Lexer::string_token(char quote) {
  std::string value;
  size_t at = at_ + 1;
  while (at < source_.size() && source_[at] != quote) {
    if (source_[at] != '\\') {
      value += source_[at++];
    } else {
      HS_RETURN_IF_ERROR(escape(value, at));
    }
  }
  if (at >= source_.size()) return error("a string is not closed");
  push(TokenKind::kString, std::move(value));
  advance_to(at + 1);
  return {};
}

// One backslash escape at `at`, with Python's meaning; unknown ones stay as they are.
Status Lexer::escape(std::string& out, size_t& at) {
  static constexpr std::string_view kPlain = "\\'\"abfnrtv";
  static constexpr std::string_view kMeaning = "\\'\"\a\b\f\n\r\t\v";
  if (at + 1 >= source_.size()) return error("a string is not closed");
  const char c = source_[at + 1];
  at += 2;
  if (c == '\n') return {};
  if (const size_t i = kPlain.find(c); i != std::string_view::npos) {
    out += kMeaning[i];
    return {};
  }
  const bool octal = c >= '0' && c <= '7';
  const size_t digits = octal ? 3 : c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
  if (digits == 0) {
    if (c == 'N') return error("\\N{…} escapes are not known");
    out += '\\';
    out += c;
    return {};
  }
  if (octal) --at;
  uint32_t code = 0;
  size_t used = 0;
  for (; used < digits && at < source_.size(); ++used, ++at) {
    uint32_t digit = 0;
    const char* begin = &source_[at];
    if (std::from_chars(begin, begin + 1, digit, octal ? 8 : 16).ec != std::errc()) break;
    code = code * (octal ? 8 : 16) + digit;
  }
  if (!octal && used < digits) return error(fmt::format("truncated \\{} escape", c));
  if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
    return error(fmt::format("\\{} escape outside of Unicode", c));
  }
  utf8_append(out, static_cast<char32_t>(code));
  return {};
}

Status Lexer::number_token() {
  size_t end = at_;
  bool is_float = false;
  const auto digits = [&] {
    while (end < source_.size() && (is_digit(source_[end]) || source_[end] == '_')) ++end;
  };
  const auto digit_at = [&](size_t i) { return i < source_.size() && is_digit(source_[i]); };
  digits();
  // "a.0.b": after a dot, a number is one index.
  const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
  if (!after_dot && end < source_.size() && source_[end] == '.' && digit_at(end + 1)) {
    is_float = true;
    ++end;
    digits();
  }
  if (!after_dot && end < source_.size() && (source_[end] | 0x20) == 'e') {
    const size_t sign =
        end + 1 < source_.size() && (source_[end + 1] == '-' || source_[end + 1] == '+');
    if (digit_at(end + 1 + sign)) {
      is_float = true;
      end += 1 + sign;
      digits();
    }
  }
  std::string digits_only = source_.substr(at_, end - at_);
  std::erase(digits_only, '_');
  Token token;
  token.line = line_;
  token.value = digits_only;
  token.kind = is_float ? TokenKind::kFloat : TokenKind::kInteger;
  int64_t small = 0;
  const char* last = digits_only.data() + digits_only.size();
  const auto parsed = is_float ? std::from_chars(digits_only.data(), last, token.number)
                               : std::from_chars(digits_only.data(), last, small);
  if (parsed.ec != std::errc()) return error(fmt::format("number {} is out of range", digits_only));
  token.integer = small;
  tokens_.push_back(std::move(token));
  advance_to(end);
  return {};
}

}  // namespace

Result<std::vector<Token>> tokenize_template(std::string_view source) {
  if (!utf8_is_valid(source)) return fail("the template is not valid UTF-8");
  return Lexer(source).run();
}

std::string describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kText:
      return "text";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "end of statement block";
    case TokenKind::kPrintBegin:
      return "'{{'";
    case TokenKind::kPrintEnd:
      return "end of print statement";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kEnd:
      return "end of template";
    default:
      return fmt::format("'{}'", token.value);
  }
}

}  // namespace hotset::jinja
