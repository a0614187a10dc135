// SPDX-License-Identifier: Apache-2.0
// Byte-pair merging: a piece starts as single bytes, and the adjacent pair with the lowest rank
// (the leftmost of equals) is merged until no pair has a rank.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace hotset {

class Bpe {
 public:
  static constexpr uint32_t kNoRank = UINT32_MAX;

  // `byte_ids`: the token of each single byte.
  Bpe(const std::array<int32_t, 256>& byte_ids, size_t merges);

  // Ranks are the order of the calls.
  Status add_merge(int32_t left, int32_t right, int32_t merged);

  // Appends the piece's ids. Short pieces take a scan a merge, long ones a heap (n log n).
  void merge(std::string_view piece, std::vector<int32_t>& out) const;

 private:
  struct Merge {
    uint64_t pair = kNoPair;
    uint32_t rank = kNoRank;
    int32_t id = -1;
  };
  static constexpr uint64_t kNoPair = UINT64_MAX;

  [[nodiscard]] const Merge& find(int32_t left, int32_t right) const;
  void merge_short(std::string_view piece, std::vector<int32_t>& out) const;
  void merge_long(std::string_view piece, std::vector<int32_t>& out) const;

  std::array<int32_t, 256> byte_ids_;
  std::vector<Merge> table_;  // open addressing, a power of two
  uint32_t merges_ = 0;
};

}  // namespace hotset
