// SPDX-License-Identifier: Apache-2.0
#include "engine/kept_sequences.h"

#include <gtest/gtest.h>

namespace hotset {
namespace {

KeptSequences::Entry entry_of(std::vector<int32_t> ids) {
  return {std::move(ids), std::make_unique<SequenceState>()};
}

TEST(KeptSequences, ReusesProperPrefixesOnly) {
  KeptSequences kept(4);
  kept.keep(entry_of({1, 2, 3}));
  EXPECT_FALSE(kept.take_prefix_of(std::vector<int32_t>{1, 2}).has_value());
  EXPECT_FALSE(kept.take_prefix_of(std::vector<int32_t>{1, 2, 3}).has_value()) << "nothing to feed";
  EXPECT_FALSE(kept.take_prefix_of(std::vector<int32_t>{1, 2, 4, 5}).has_value());
  const auto entry = kept.take_prefix_of(std::vector<int32_t>{1, 2, 3, 4});
  ASSERT_TRUE(entry.has_value());
  EXPECT_EQ(entry->fed_ids, (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(kept.size(), 0u) << "taken out";
}

TEST(KeptSequences, PrefersTheLongest) {
  KeptSequences kept(4);
  kept.keep(entry_of({1}));
  kept.keep(entry_of({1, 2, 3}));
  kept.keep(entry_of({1, 2}));
  EXPECT_EQ(kept.take_prefix_of(std::vector<int32_t>{1, 2, 3, 4})->fed_ids.size(), 3u);
}

TEST(KeptSequences, DropsTheOldest) {
  KeptSequences kept(2);
  kept.keep(entry_of({1}));
  kept.keep(entry_of({2}));
  kept.keep(entry_of({3}));
  EXPECT_EQ(kept.size(), 2u);
  EXPECT_FALSE(kept.take_prefix_of(std::vector<int32_t>{1, 9}).has_value());
  EXPECT_TRUE(kept.drop_oldest());
  EXPECT_FALSE(kept.take_prefix_of(std::vector<int32_t>{2, 9}).has_value());
  EXPECT_TRUE(kept.take_prefix_of(std::vector<int32_t>{3, 9}).has_value());
  EXPECT_FALSE(kept.drop_oldest());
  KeptSequences none(0);
  none.keep(entry_of({1}));
  EXPECT_EQ(none.size(), 0u);
}

}  // namespace
}  // namespace hotset
