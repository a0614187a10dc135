// SPDX-License-Identifier: Apache-2.0
// A trie whose children are linked lists; texts mostly leave it at the first byte.
#include "tokenizer/added_tokens.h"

#include <fmt/format.h>

namespace hotset {

Status AddedTokens::add(std::string_view text, int32_t id) {
  if (text.empty()) return fail("an added token is empty");
  if (text.size() > kMaxTokenBytes) {
    return fail(
        fmt::format("an added token has {} bytes, the limit is {}", text.size(), kMaxTokenBytes));
  }
  uint32_t at = kNone;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    uint32_t next = at == kNone ? roots_[byte] : child(nodes_[at].first_child, byte);
    if (next == kNone) {
      next = static_cast<uint32_t>(nodes_.size());
      nodes_.push_back({.byte = byte});
      uint32_t& head = at == kNone ? roots_[byte] : nodes_[at].first_child;
      nodes_[next].next_sibling = head;
      head = next;
    }
    at = next;
  }
  if (nodes_[at].id >= 0) return fail(fmt::format("'{}' is added twice", text));
  nodes_[at].id = id;
  return {};
}

std::optional<AddedTokens::Match> AddedTokens::find(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    uint32_t at = roots_[static_cast<uint8_t>(text[begin])];
    std::optional<Match> longest;
    for (size_t end = begin + 1; at != kNone; ++end) {
      if (nodes_[at].id >= 0) longest = Match{begin, end, nodes_[at].id};
      if (end == text.size()) break;
      at = child(nodes_[at].first_child, static_cast<uint8_t>(text[end]));
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

std::optional<int32_t> AddedTokens::id_of(std::string_view text) const {
  const auto match = find(text, 0);
  if (!match || match->begin != 0 || match->end != text.size()) return std::nullopt;
  return match->id;
}

}  // namespace hotset
