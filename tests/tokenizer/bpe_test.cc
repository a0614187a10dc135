// SPDX-License-Identifier: Apache-2.0
// Merging against its definition: scan all pairs, merge the leftmost of the lowest rank, repeat.
#include "tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <random>

namespace hotset::testing {
namespace {

struct Reference {
  std::map<std::pair<int32_t, int32_t>, std::pair<uint32_t, int32_t>> merges;  // to rank and id

  [[nodiscard]] std::vector<int32_t> merge(std::string_view piece) const {
    std::vector<int32_t> ids;
    for (const char c : piece) ids.push_back(static_cast<uint8_t>(c));
    while (true) {
      size_t best = ids.size();
      std::pair<uint32_t, int32_t> found{Bpe::kNoRank, 0};
      for (size_t i = 0; i + 1 < ids.size(); ++i) {
        const auto it = merges.find({ids[i], ids[i + 1]});
        if (it == merges.end() || it->second.first >= found.first) continue;
        found = it->second;
        best = i;
      }
      if (best == ids.size()) return ids;
      ids[best] = found.second;
      ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    }
  }
};

std::array<int32_t, 256> bytes_as_ids() {
  std::array<int32_t, 256> ids{};
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

// Random merges over few letters, so that they overlap and nest; pieces on both sides of the border
// between the short and the long way.
TEST(Bpe, EqualsItsDefinition) {
  std::mt19937_64 rng(3);
  for (int round = 0; round < 60; ++round) {
    constexpr size_t kMerges = 40;
    Bpe bpe(bytes_as_ids(), kMerges);
    Reference reference;
    std::vector<int32_t> known = {'a', 'b', 'c'};
    while (reference.merges.size() < kMerges) {
      const int32_t left = known[rng() % known.size()], right = known[rng() % known.size()];
      const auto rank = static_cast<uint32_t>(reference.merges.size());
      const auto id = static_cast<int32_t>(256 + rank);
      if (!reference.merges.emplace(std::pair(left, right), std::pair(rank, id)).second) continue;
      ASSERT_TRUE(bpe.add_merge(left, right, id));
      known.push_back(id);
    }
    for (const size_t length : {1, 2, 3, 7, 20, 47, 48, 49, 50, 100, 300}) {
      for (int i = 0; i < 8; ++i) {
        std::string piece;
        const uint64_t letters = 1 + rng() % 3;
        while (piece.size() < length) piece += static_cast<char>('a' + rng() % letters);
        std::vector<int32_t> out = {-7};
        bpe.merge(piece, out);
        std::vector<int32_t> expected = reference.merge(piece);
        expected.insert(expected.begin(), -7);
        ASSERT_EQ(out, expected) << piece;
      }
    }
  }
}

TEST(Bpe, RefusesAPairTwice) {
  Bpe bpe(bytes_as_ids(), 2);
  EXPECT_TRUE(bpe.add_merge('a', 'b', 256));
  EXPECT_FALSE(bpe.add_merge('a', 'b', 257));
}

}  // namespace
}  // namespace hotset::testing
