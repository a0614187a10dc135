// SPDX-License-Identifier: Apache-2.0
// Seeded random strings out of golden/tokenizer/generator.txt; tools/tokenizer/text_generator.py
// makes the same ones, which is how the golden files know them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace hotset::testing {

class TextGenerator {
 public:
  explicit TextGenerator(const std::string& path);

  [[nodiscard]] std::string text(uint64_t index);

 private:
  struct Range {
    char32_t first, last;
  };

  void append_part(std::string& out);
  uint64_t next();
  size_t pick(size_t n) { return static_cast<size_t>(next() % n); }
  const std::string& snippet() { return snippets_[pick(snippets_.size())]; }
  char32_t char_of(const Range& range);
  char32_t any_char() { return char_of(ranges_[pick(ranges_.size())]); }

  std::vector<Range> ranges_, marks_;
  std::vector<char32_t> spaces_;
  std::vector<std::string> snippets_;
  uint64_t state_ = 0;
};

// FNV-1a over whole integers instead of bytes.
class Fnv {
 public:
  void add(uint64_t value) { hash_ = (hash_ ^ value) * 0x100000001b3u; }
  [[nodiscard]] uint64_t value() const { return hash_; }

 private:
  uint64_t hash_ = 0xcbf29ce484222325u;
};

}  // namespace hotset::testing
