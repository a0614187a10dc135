// SPDX-License-Identifier: Apache-2.0
// The byte strings of the BPE vocabulary and the added tokens: id to bytes, and bytes to id for the
// BPE part. Also GPT-2's alphabet, the 256 characters in which files spell bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace hotset {

// Ids above this are refused: no model has that many rows, and tables are sized by the highest id.
inline constexpr int32_t kMaxTokenId = (1 << 22) - 1;

// Appends the bytes that `spelled` stands for; false if a character isn't in the byte alphabet.
[[nodiscard]] bool append_spelled_bytes(std::string_view spelled, std::string& out);
// The other way: appends the character that stands for `byte`, as UTF-8.
void append_spelling(uint8_t byte, std::string& out);

class Vocabulary {
 public:
  Vocabulary(int32_t max_id, size_t tokens, size_t total_bytes);

  // Puts a token into a free id. `is_searchable` ones are found by find(); two of those with equal
  // bytes are an error, and so is a crowd of colliding hashes.
  Status add(int32_t id, std::string_view bytes, bool is_searchable);

  [[nodiscard]] bool has(int32_t id) const { return in_range(id) && spans_[index(id)].used; }
  [[nodiscard]] std::string_view bytes(int32_t id) const {
    if (!in_range(id)) return {};
    const Span& span = spans_[index(id)];
    return std::string_view(arena_).substr(span.begin, span.length);
  }
  [[nodiscard]] std::optional<int32_t> find(std::string_view bytes) const;
  [[nodiscard]] int32_t size() const { return static_cast<int32_t>(spans_.size()); }
  // Of the longest token added so far.
  [[nodiscard]] size_t longest_bytes() const { return longest_bytes_; }

 private:
  struct Span {
    uint32_t begin = 0;
    uint32_t length : 31 = 0;
    uint32_t used : 1 = 0;
  };
  // The upper half of the hash, so that most misses are seen without touching the bytes.
  struct Slot {
    uint32_t tag = 0;
    int32_t id = -1;
  };

  static size_t index(int32_t id) { return static_cast<size_t>(id); }
  [[nodiscard]] bool in_range(int32_t id) const { return id >= 0 && id < size(); }

  std::vector<Span> spans_;  // by id
  std::vector<Slot> slots_;  // open addressing, a power of two
  std::string arena_;
  size_t longest_bytes_ = 0;
};

}  // namespace hotset
