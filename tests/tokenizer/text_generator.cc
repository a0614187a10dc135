// SPDX-License-Identifier: Apache-2.0
// The counterpart of tools/tokenizer/text_generator.py: same order of random numbers.
#include "text_generator.h"

#include <fstream>
#include <sstream>

#include "base/check.h"
#include "base/utf8.h"

namespace hotset::testing {
namespace {

std::string unescape(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    const char kind = text[++i];
    if (kind == 'u') {
      const size_t close = text.find('}', i);
      utf8_append(
          out, static_cast<char32_t>(std::stoul(text.substr(i + 2, close - i - 2), nullptr, 16)));
      i = close;
    } else {
      out += kind == 'n' ? '\n' : kind == 'r' ? '\r' : kind == 't' ? '\t' : kind;
    }
  }
  return out;
}

}  // namespace

TextGenerator::TextGenerator(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  HS_CHECK(in.good(), "cannot read {}", path);
  for (std::string line; std::getline(in, line);) {
    const size_t space = line.find(' ');
    const std::string kind = line.substr(0, space), rest = line.substr(space + 1);
    std::istringstream numbers(rest);
    uint32_t first = 0, last = 0;
    if (kind == "snippet") {
      snippets_.push_back(unescape(rest));
    } else if (numbers >> std::hex >> first; kind == "space") {
      spaces_.push_back(first);
    } else {
      numbers >> std::hex >> last;
      (kind == "range" ? ranges_ : marks_).push_back({first, last});
    }
  }
}

std::string TextGenerator::text(uint64_t index) {
  state_ = index * 0xd1b54a32d192ed03u;
  std::string out;
  for (size_t parts = 1 + pick(12); parts > 0; --parts) append_part(out);
  return out;
}

void TextGenerator::append_part(std::string& out) {
  const size_t kind = pick(12);
  if (kind < 4) {
    out += snippet();
  } else if (kind == 4) {
    for (size_t n = 1 + pick(6); n > 0; --n) out += ' ' + snippet();
  } else if (kind < 7) {
    const Range range = ranges_[pick(ranges_.size())];
    for (size_t n = 1 + pick(12); n > 0; --n) utf8_append(out, char_of(range));
  } else if (kind == 7) {
    for (size_t n = 1 + pick(8); n > 0; --n) utf8_append(out, any_char());
  } else if (kind == 8) {
    for (size_t n = 1 + pick(8); n > 0; --n) utf8_append(out, spaces_[pick(spaces_.size())]);
  } else if (kind == 9) {
    const char32_t c = any_char();
    for (size_t n = 1 + pick(40); n > 0; --n) utf8_append(out, c);
  } else if (kind == 10) {
    utf8_append(out, any_char());
    for (size_t n = 1 + pick(4); n > 0; --n) utf8_append(out, char_of(marks_[pick(marks_.size())]));
  } else {
    for (size_t n = 1 + pick(20); n > 0; --n) out += static_cast<char>(0x20 + pick(95));
  }
}

uint64_t TextGenerator::next() {  // splitmix64
  state_ += 0x9e3779b97f4a7c15u;
  uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

char32_t TextGenerator::char_of(const Range& range) {
  return range.first + static_cast<char32_t>(pick(range.last - range.first + 1));
}

}  // namespace hotset::testing
