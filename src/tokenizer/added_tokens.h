// SPDX-License-Identifier: Apache-2.0
// Finds added tokens in text: the leftmost one, and of several that begin there the longest.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace hotset {

class AddedTokens {
 public:
  static constexpr size_t kMaxTokenBytes = 512;

  // Empty, overlong and repeated texts are errors.
  Status add(std::string_view text, int32_t id);

  struct Match {
    size_t begin = 0;
    size_t end = 0;
    int32_t id = 0;
  };
  // The first match at or behind `from`.
  [[nodiscard]] std::optional<Match> find(std::string_view text, size_t from) const;

  // The token that is exactly this text.
  [[nodiscard]] std::optional<int32_t> id_of(std::string_view text) const;

  [[nodiscard]] bool empty() const { return nodes_.empty(); }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Node {
    uint32_t first_child = kNone;
    uint32_t next_sibling = kNone;
    int32_t id = -1;  // the token that ends here
    uint8_t byte = 0;
  };

  [[nodiscard]] uint32_t child(uint32_t first, uint8_t byte) const {
    while (first != kNone && nodes_[first].byte != byte) first = nodes_[first].next_sibling;
    return first;
  }

  std::array<uint32_t, 256> roots_ = make_roots();
  std::vector<Node> nodes_;

  static constexpr std::array<uint32_t, 256> make_roots() {
    std::array<uint32_t, 256> roots{};
    roots.fill(kNone);
    return roots;
  }
};

}  // namespace hotset
