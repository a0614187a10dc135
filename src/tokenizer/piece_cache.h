// SPDX-License-Identifier: Apache-2.0
// Words repeat: within one call, a piece seen before is copied from where its ids stand in the
// output already. Direct-mapped, so no choice of words makes it slow.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tokenizer/byte_hash.h"

namespace hotset {

// The texts of the pieces, and the output, must live as long as the cache.
class PieceCache {
 public:
  static constexpr size_t kMaxPieceBytes = 64;

  explicit PieceCache(size_t text_bytes)
      : entries_(std::bit_ceil(std::clamp<size_t>(text_bytes / 8, 8, 16384))) {}

  // Appends the ids of `piece`, asking merge(piece, out) only for what isn't known.
  template <typename Merge>
  void append(std::string_view piece, std::vector<int32_t>& out, Merge&& merge) {
    if (piece.size() > kMaxPieceBytes) return merge(piece, out);
    Entry& entry = entries_[hash_bytes(piece) & (entries_.size() - 1)];
    const size_t begin = out.size();
    if (entry.piece == piece) {
      for (size_t i = 0; i < entry.count; ++i) out.push_back(out[entry.begin + i]);
      return;
    }
    merge(piece, out);
    entry = {piece, begin, out.size() - begin};
  }

 private:
  struct Entry {
    std::string_view piece;  // empty: free; pieces never are
    size_t begin = 0;        // into the output
    size_t count = 0;
  };

  std::vector<Entry> entries_;
};

}  // namespace hotset
