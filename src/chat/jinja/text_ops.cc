// SPDX-License-Identifier: Apache-2.0
// Cuts are found on bytes and fall between characters because both sides are valid UTF-8.
#include "chat/jinja/text_ops.h"

#include <fmt/format.h>
#include <unicode/uchar.h>
#include <unicode/ustring.h>

#include <algorithm>

#include "base/utf8.h"
#include "chat/jinja/print.h"

namespace hotset::jinja {
namespace {

constexpr size_t kNone = std::string_view::npos;

size_t rfind_bytes(std::string_view text, std::string_view needle, size_t end) {
  return text.substr(0, end).rfind(needle);
}

size_t previous_char(std::string_view bytes, size_t end) {
  size_t at = end - 1;
  while (at > 0 && (static_cast<unsigned char>(bytes[at]) & 0xc0) == 0x80) --at;
  return at;
}

// Splits by runs of white space: positions are found left to right or right to left.
std::vector<Value> split_spaces(const Text& text, int64_t max_splits, Budget& budget) {
  std::vector<Value> out;
  const std::string_view bytes = text.view();
  size_t at = 0;
  const auto skip = [&](bool spaces) {
    while (at < bytes.size() && is_space(decode_char(bytes, at)) == spaces) {
      at += utf8_length(bytes[at]);
    }
  };
  for (skip(true); at < bytes.size() && !budget.exceeded(); skip(true)) {
    const size_t begin = at;
    if (max_splits >= 0 && static_cast<int64_t>(out.size()) == max_splits) {
      out.emplace_back(text.slice(begin, bytes.size(), &budget));
      break;
    }
    skip(false);
    out.emplace_back(text.slice(begin, at, &budget));
  }
  return out;
}

std::vector<Value> rsplit_spaces(const Text& text, int64_t max_splits, Budget& budget) {
  std::vector<Value> out;
  const std::string_view bytes = text.view();
  size_t end = bytes.size();
  const auto skip = [&](bool spaces) {
    while (end > 0) {
      const size_t before = previous_char(bytes, end);
      if (is_space(decode_char(bytes, before)) != spaces) break;
      end = before;
    }
  };
  for (skip(true); end > 0 && !budget.exceeded(); skip(true)) {
    const size_t stop = end;
    if (max_splits >= 0 && static_cast<int64_t>(out.size()) == max_splits) {
      out.emplace_back(text.slice(0, stop, &budget));
      break;
    }
    skip(false);
    out.emplace_back(text.slice(end, stop, &budget));
  }
  std::reverse(out.begin(), out.end());
  return out;
}

void append_mapped(TextBuilder& out, const Text& text, size_t at, size_t length, Case to) {
  const std::string_view raw = text.view().substr(at, length);
  const auto& spans = text.spans();
  const auto it = std::partition_point(spans.begin(), spans.end(),
                                       [&](const Span& span) { return span.end <= at; });
  const bool untrusted = it != spans.end() && it->begin <= at;
  if (length == 1) {
    const char c = raw[0];
    const bool lower = c >= 'a' && c <= 'z';
    const bool upper = c >= 'A' && c <= 'Z';
    const char mapped = to == Case::kLower ? (upper ? static_cast<char>(c + 32) : c)
                                           : (lower ? static_cast<char>(c - 32) : c);
    out.append({&mapped, 1}, untrusted);
    return;
  }
  UChar source[2];
  UChar mapped[8];
  int32_t units = 0;
  UErrorCode status = U_ZERO_ERROR;
  const auto c = static_cast<UChar32>(decode_char(text.view(), at));
  u_strFromUTF32(source, 2, &units, &c, 1, &status);
  const int32_t n = to == Case::kLower ? u_strToLower(mapped, 8, source, units, "", &status)
                    : to == Case::kUpper
                        ? u_strToUpper(mapped, 8, source, units, "", &status)
                        : u_strToTitle(mapped, 8, source, units, nullptr, "", &status);
  char utf8[32];
  int32_t utf8_bytes = 0;
  u_strToUTF8(utf8, sizeof(utf8), &utf8_bytes, mapped, n, &status);
  if (U_FAILURE(status)) {
    out.append(raw, untrusted);
  } else {
    out.append({utf8, static_cast<size_t>(utf8_bytes)}, untrusted);
  }
}

bool is_letter(char32_t c) {
  return c < 0x80 ? (c | 0x20) >= 'a' && (c | 0x20) <= 'z'
                  : u_isUAlphabetic(static_cast<UChar32>(c)) != 0;
}

}  // namespace

Text strip(const Text& text, const std::optional<Text>& chars, Side side, Budget& budget) {
  const std::string_view bytes = text.view();
  budget.spend(bytes.size() / 6);
  const auto drops = [&](size_t at) {
    if (budget.exceeded()) return false;
    if (!chars) return is_space(decode_char(bytes, at));
    budget.spend(chars->num_bytes() / 32);
    return find_bytes(chars->view(), bytes.substr(at, utf8_length(bytes[at])), 0) != kNone;
  };
  size_t begin = 0;
  size_t end = bytes.size();
  if (side != Side::kRight) {
    while (begin < end && drops(begin)) begin += utf8_length(bytes[begin]);
  }
  if (side != Side::kLeft) {
    while (end > begin) {
      const size_t before = previous_char(bytes, end);
      if (!drops(before)) break;
      end = before;
    }
  }
  return text.slice(begin, end, &budget);
}

Result<std::vector<Value>> split(const Text& text, const std::optional<Text>& separator,
                                 int64_t max_splits, bool from_right, Budget& budget) {
  budget.spend(text.num_bytes() / 32);
  if (!separator) {
    return from_right ? rsplit_spaces(text, max_splits, budget)
                      : split_spaces(text, max_splits, budget);
  }
  if (separator->empty()) return fail("empty separator");
  const std::string_view bytes = text.view();
  const std::string_view cut = separator->view();
  std::vector<Value> out;
  const auto may_cut = [&] {
    return max_splits < 0 || static_cast<int64_t>(out.size()) < max_splits;
  };
  if (from_right) {
    budget.spend(bytes.size() * cut.size() / 256);  // rfind compares anew at every position
    if (budget.exceeded()) return out;
    size_t end = bytes.size();
    for (size_t at = kNone; may_cut() && !budget.exceeded(); end = at) {
      at = rfind_bytes(bytes, cut, end);
      if (at == kNone) break;
      out.emplace_back(text.slice(at + cut.size(), end, &budget));
    }
    out.emplace_back(text.slice(0, end, &budget));
    std::reverse(out.begin(), out.end());
    return out;
  }
  size_t begin = 0;
  while (may_cut() && !budget.exceeded()) {
    const size_t at = find_bytes(bytes, cut, begin);
    if (at == kNone) break;
    out.emplace_back(text.slice(begin, at, &budget));
    begin = at + cut.size();
  }
  out.emplace_back(text.slice(begin, bytes.size(), &budget));
  return out;
}

std::vector<Value> split_lines(const Text& text, bool keep_ends, Budget& budget) {
  std::vector<Value> out;
  const std::string_view bytes = text.view();
  const auto is_break = [](char32_t c) {
    return (c >= '\n' && c <= '\r') || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
  };
  size_t begin = 0;
  for (size_t at = 0; at < bytes.size() && !budget.exceeded();) {
    const size_t length = utf8_length(bytes[at]);
    const char32_t c = decode_char(bytes, at);
    if (!is_break(c)) {
      at += length;
      continue;
    }
    const bool pair = c == '\r' && at + 1 < bytes.size() && bytes[at + 1] == '\n';
    const size_t next = at + length + (pair ? 1 : 0);
    out.emplace_back(text.slice(begin, keep_ends ? next : at, &budget));
    begin = at = next;
  }
  if (begin < bytes.size()) out.emplace_back(text.slice(begin, bytes.size(), &budget));
  return out;
}

Text replace(const Text& text, const Text& from, const Text& to, int64_t max_count,
             Budget& budget) {
  TextBuilder out(&budget);
  const std::string_view bytes = text.view();
  budget.spend(bytes.size() / 32);
  size_t begin = 0;
  size_t search = 0;
  for (int64_t n = 0; (max_count < 0 || n < max_count) && !budget.exceeded(); ++n) {
    budget.spend(1);
    const size_t at = find_bytes(bytes, from.view(), search);
    if (at == kNone) break;
    out.append(text, begin, at);
    out.append(to);
    begin = at + from.num_bytes();
    search = begin;
    if (from.empty()) {  // between all characters, and at both ends
      if (at >= bytes.size()) break;
      search = at + utf8_length(bytes[at]);
    }
  }
  out.append(text, begin, bytes.size());
  return out.take();
}

Text change_case(const Text& text, Case to, Budget& budget) {
  TextBuilder out(&budget);
  const std::string_view bytes = text.view();
  budget.spend(bytes.size() / 6);
  bool after_letter = false;
  for (size_t at = 0; at < bytes.size() && !budget.exceeded();) {
    const size_t length = utf8_length(bytes[at]);
    Case mapping = to;
    if (to == Case::kCapitalized) mapping = at == 0 ? Case::kTitle : Case::kLower;
    if (to == Case::kTitle) {
      const bool letter = is_letter(decode_char(bytes, at));
      mapping = letter && after_letter ? Case::kLower : Case::kTitle;
      after_letter = letter;
    }
    append_mapped(out, text, at, length, mapping);
    at += length;
  }
  return out.take();
}

Text reversed(const Text& text, Budget& budget) {
  TextBuilder out(&budget);
  budget.spend(text.num_bytes() / 16);
  for (size_t end = text.num_bytes(); end > 0 && !budget.exceeded();) {
    const size_t begin = previous_char(text.view(), end);
    out.append(text, begin, end);
    end = begin;
  }
  return out.take();
}

Text repeated(const Text& text, Int times, Budget& budget) {
  TextBuilder out(&budget);
  if (text.empty() || times <= 0) return {};
  if (times > Int{1} << 40 || !budget.can_hold(text.num_bytes() * static_cast<size_t>(times))) {
    budget.refuse("too much memory");
  }
  for (Int i = 0; i < times && !budget.exceeded(); ++i) {
    budget.spend(1);
    out.append(text);
  }
  return out.take();
}

Result<Text> joined(const std::vector<Value>& items, const Text& separator, Budget& budget) {
  TextBuilder out(&budget);
  for (size_t i = 0; i < items.size() && !budget.exceeded(); ++i) {
    budget.spend(1);
    if (i > 0) out.append(separator);
    HS_ASSIGN_OR_RETURN(const Text piece, to_text(items[i], budget));
    out.append(piece);
  }
  return out.take();
}

}  // namespace hotset::jinja
