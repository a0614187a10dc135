// SPDX-License-Identifier: Apache-2.0
#include "kvcache/sequence_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <utility>

namespace hotset {
namespace {

PagePool page_pool(int64_t num_pages) {
  auto pool = PagePool::create({.num_layers = 2,
                                .num_key_value_heads = 3,
                                .head_dim = 8,
                                .value_bytes = 4,
                                .page_tokens = 16,
                                .num_pages = num_pages});
  EXPECT_TRUE(pool);
  return std::move(*pool);
}

StatePool state_pool(int64_t num_slots) {
  auto pool = StatePool::create(
      {.num_layers = 3, .delta_floats = 10, .conv_floats = 4, .num_slots = num_slots});
  EXPECT_TRUE(pool);
  return std::move(*pool);
}

TEST(SequenceCache, PagesAndStatesComeBack) {
  PagePool pages = page_pool(4);
  StatePool states = state_pool(1);
  {
    auto cache = SequenceCache::create(pages, states);
    ASSERT_TRUE(cache);
    ASSERT_TRUE(cache->reserve(17));
    EXPECT_EQ(pages.num_free(), 2);
    EXPECT_FALSE(SequenceCache::create(pages, states)) << "one slot, two sequences";
    SequenceCache moved = std::move(*cache);
    EXPECT_EQ(moved.pages().size(), 2u);
    EXPECT_TRUE(pages.check_integrity());
  }
  EXPECT_EQ(pages.num_free(), 4);
  EXPECT_EQ(states.num_free(), 1);
}

TEST(SequenceCache, AReservationThatFailsTakesNothing) {
  PagePool pages = page_pool(3);
  StatePool states = state_pool(1);
  auto cache = SequenceCache::create(pages, states);
  ASSERT_TRUE(cache && cache->reserve(16));
  const Status full = cache->reserve(49);
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().kind, ErrorKind::kResource);
  EXPECT_EQ(cache->pages().size(), 1u);
  EXPECT_EQ(pages.num_free(), 2);
}

TEST(SequenceCache, ANewSequenceStartsFromZeroState) {
  PagePool pages = page_pool(1);
  StatePool states = state_pool(1);
  {
    auto cache = SequenceCache::create(pages, states);
    ASSERT_TRUE(cache);
    std::fill_n(cache->state_data(), states.shape().slot_floats(), 5.0f);
  }
  auto cache = SequenceCache::create(pages, states);
  ASSERT_TRUE(cache);
  const std::span<const float> state(cache->state_data(),
                                     static_cast<size_t>(states.shape().slot_floats()));
  EXPECT_THAT(state, testing::Each(0.0f));
}

}  // namespace
}  // namespace hotset
