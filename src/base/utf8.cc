// SPDX-License-Identifier: Apache-2.0
#include "base/utf8.h"

namespace hotset {
namespace {

// What the bytes at the front of a text are.
struct Lead {
  size_t length = 0;      // bytes that belong to this character or maximal invalid piece
  bool complete = false;  // a whole valid character
  bool cut = false;       // valid so far, ended by the end of the text
};

Lead classify(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return {1, true, false};
  size_t need = 0;
  uint8_t low = 0x80, high = 0xbf;  // range of the second byte
  if (first >= 0xc2 && first <= 0xdf) {
    need = 2;
  } else if (first >= 0xe0 && first <= 0xef) {
    need = 3;
    if (first == 0xe0) low = 0xa0;
    if (first == 0xed) high = 0x9f;
  } else if (first >= 0xf0 && first <= 0xf4) {
    need = 4;
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f;
  } else {
    return {1, false, false};
  }
  for (size_t i = 1; i < need; ++i) {
    if (i == text.size()) return {i, false, true};
    if (byte(i) < low || byte(i) > high) return {i, false, false};
    low = 0x80;
    high = 0xbf;
  }
  return {need, true, false};
}

}  // namespace

size_t utf8_valid_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Lead lead = classify(text.substr(at));
    if (!lead.complete) break;
    at += lead.length;
  }
  return at;
}

bool utf8_is_incomplete(std::string_view tail) {
  if (tail.empty()) return false;
  const Lead lead = classify(tail);
  return lead.cut && lead.length == tail.size();
}

std::string utf8_replace_invalid(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Lead lead = classify(text);
    if (lead.complete) {
      out.append(text.substr(0, lead.length));
    } else {
      out.append("\xef\xbf\xbd");
    }
    text.remove_prefix(lead.length);
  }
  return out;
}

void utf8_append(std::string& out, char32_t code_point) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  const auto c = static_cast<uint32_t>(code_point);
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | (c >> 6));
    put(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    put(0xe0 | (c >> 12));
    put(0x80 | ((c >> 6) & 0x3f));
    put(0x80 | (c & 0x3f));
  } else {
    put(0xf0 | (c >> 18));
    put(0x80 | ((c >> 12) & 0x3f));
    put(0x80 | ((c >> 6) & 0x3f));
    put(0x80 | (c & 0x3f));
  }
}

}  // namespace hotset
