// SPDX-License-Identifier: Apache-2.0
#include "experts/slot_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "experts/count_allocations.h"
#include "experts/routing_profile.h"

namespace hotset {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

SlotCacheOptions small() {
  return {.num_layers = 2, .num_experts = 8, .num_slots = 4, .slot_bytes = 100};
}

void use(SlotCache& cache, int32_t layer, int64_t step, std::vector<uint16_t> ids) {
  cache.use(layer, step, ids);
}

// Fills all slots with the first experts of each layer and makes them visible.
void fill(SlotCache& cache) {
  for (const Insertion& insertion : cache.plan_fill(0)) cache.commit_insertion(insertion.slot);
}

TEST(SlotCache, WithoutAProfileFillsEvenlyOverTheLayers) {
  SlotCache cache = *SlotCache::create(small());
  fill(cache);
  for (int32_t layer = 0; layer < 2; ++layer) {
    EXPECT_EQ(cache.num_resident(layer), 2);
    EXPECT_NE(cache.slot_of(layer, 0), kNoSlot);
    EXPECT_NE(cache.slot_of(layer, 1), kNoSlot);
  }
  EXPECT_EQ(cache.num_free(), 0);
  EXPECT_TRUE(cache.check_integrity());
}

TEST(SlotCache, AFreeSlotTakesAnExpertAtItsFirstTouch) {
  SlotCache cache = *SlotCache::create(small());
  use(cache, 1, 0, {5});
  const auto planned = cache.plan_insertions(0);
  ASSERT_EQ(planned.size(), 1u);
  EXPECT_EQ(planned[0].layer, 1);
  EXPECT_EQ(planned[0].expert, 5);
  const int32_t slot = planned[0].slot;
  EXPECT_EQ(cache.slot_of(1, 5), kNoSlot) << "a copy in flight is not visible";
  EXPECT_EQ(cache.use(1, 1, std::vector<uint16_t>{5}).misses.size(), 1u);
  EXPECT_TRUE(cache.plan_insertions(1).empty()) << "it is on its way already";
  cache.commit_insertion(slot);
  EXPECT_EQ(cache.slot_of(1, 5), slot);
  const LayerUses uses = cache.use(1, 2, std::vector<uint16_t>{5, 5});
  ASSERT_EQ(uses.hits.size(), 1u);
  EXPECT_EQ(uses.hits[0].slot, slot);
  EXPECT_EQ(uses.hits[0].tokens, 2);
}

TEST(SlotCache, EvictsOnTheSecondTouchAndOnlyAfterTheDrain) {
  SlotCacheOptions options = small();
  options.drain_steps = 2;
  SlotCache cache = *SlotCache::create(options);
  fill(cache);
  use(cache, 0, 0, {0, 1});
  use(cache, 1, 0, {0});  // layer 1's expert 1 is the one never used
  const int32_t slot = cache.slot_of(1, 1);
  use(cache, 0, 4, {7});
  EXPECT_TRUE(cache.plan_insertions(4).empty());
  EXPECT_NE(cache.slot_of(1, 1), kNoSlot) << "one touch is no evidence";
  cache.take_changes();
  use(cache, 0, 5, {7});
  EXPECT_TRUE(cache.plan_insertions(5).empty()) << "the slot drains first";
  EXPECT_EQ(cache.slot_of(1, 1), kNoSlot);
  ASSERT_EQ(cache.take_changes().size(), 1u);
  EXPECT_TRUE(cache.plan_insertions(6).empty());
  const auto planned = cache.plan_insertions(7);
  ASSERT_EQ(planned.size(), 1u);
  EXPECT_EQ(planned[0].slot, slot);
  EXPECT_EQ(planned[0].layer, 0);
  EXPECT_EQ(planned[0].expert, 7);
}

TEST(SlotCache, TwoTouchesFurtherApartThanTheWindowAreNoEvidence) {
  SlotCache cache = *SlotCache::create(small());
  fill(cache);
  for (int64_t step = 0; step < 200; step += 17) {
    use(cache, 0, step, {7});
    EXPECT_TRUE(cache.plan_insertions(step).empty());
    EXPECT_EQ(cache.num_in_flight(), 0);
  }
}

TEST(SlotCache, NothingOfMoreUseGoes) {
  SlotCacheOptions options = small();
  options.drain_steps = 0;
  options.insertion_price = 0;
  SlotCache cache = *SlotCache::create(options);
  fill(cache);
  for (int64_t step = 0; step < 6; ++step) {
    use(cache, 0, step, {0, 1});
    use(cache, 1, step, {0, 1});
  }
  use(cache, 0, 6, {7, 7});  // two touches against six
  EXPECT_TRUE(cache.plan_insertions(6).empty());
  EXPECT_GT(cache.counts().too_weak, 0);
}

TEST(SlotCache, AnAbortedCopyFreesItsSlot) {
  SlotCache cache = *SlotCache::create(small());
  use(cache, 0, 0, {3});
  const int32_t slot = cache.plan_insertions(0)[0].slot;
  cache.abort_insertion(slot);
  EXPECT_EQ(cache.num_free(), 4);
  EXPECT_TRUE(cache.check_integrity());
  use(cache, 0, 1, {3});
  EXPECT_EQ(cache.plan_insertions(1).size(), 1u) << "it may try again";
}

TEST(SlotCache, LentSlotsAreTheLeastValuableAndComeBackFree) {
  SlotCache cache = *SlotCache::create(small());
  fill(cache);
  use(cache, 0, 1, {0, 1});
  use(cache, 1, 1, {0});
  std::vector<int32_t> lent(1);
  const int32_t least = cache.slot_of(1, 1);
  ASSERT_TRUE(cache.lend(lent));
  EXPECT_EQ(lent[0], least);
  EXPECT_EQ(cache.slot_of(1, 1), kNoSlot);
  EXPECT_TRUE(cache.check_integrity());
  std::vector<int32_t> too_many(4);
  EXPECT_FALSE(cache.lend(too_many));
  cache.give_back(lent);
  use(cache, 1, 2, {6});
  const auto filled = cache.plan_fill(2);
  ASSERT_EQ(filled.size(), 1u);
  EXPECT_EQ(filled[0].layer, 1);
  EXPECT_EQ(filled[0].expert, 6) << "the most valuable that is not resident";
}

TEST(SlotCache, AProfileSeedsTheMostUsedButEveryLayerKeepsItsShare) {
  RoutingProfile profile = *RoutingProfile::create({.num_layers = 2, .num_experts = 8, .top_k = 2});
  for (int i = 0; i < 10; ++i) {
    profile.add(0, std::vector<uint16_t>{6, static_cast<uint16_t>(i % 3)});
    profile.add(1, std::vector<uint16_t>{static_cast<uint16_t>(i % 8), 7});
  }
  profile.add_tokens(10);
  SlotCacheOptions options = small();
  options.num_slots = 6;
  options.min_slots_per_layer = 2;
  SlotCache cache = *SlotCache::create(options);
  ASSERT_TRUE(cache.seed(profile));
  fill(cache);
  EXPECT_EQ(cache.num_resident(0), 4);
  EXPECT_EQ(cache.num_resident(1), 2);
  for (const int32_t expert : {6, 0, 1, 2}) EXPECT_NE(cache.slot_of(0, expert), kNoSlot);
  EXPECT_NE(cache.slot_of(1, 7), kNoSlot);

  const RoutingProfile other =
      *RoutingProfile::create({.num_layers = 3, .num_experts = 8, .top_k = 2});
  EXPECT_THAT(cache.seed(other).error().message, HasSubstr("3 layers"));
}

// A profile's order over all layers; what was never chosen comes last, evenly.
TEST(SlotCache, AProfileSeedsInTheOrderOfItsCounts) {
  RoutingProfile profile = *RoutingProfile::create({.num_layers = 2, .num_experts = 8, .top_k = 1});
  const auto choose = [&](int32_t layer, uint16_t expert, int times) {
    for (int i = 0; i < times; ++i) profile.add(layer, std::vector<uint16_t>{expert});
  };
  choose(0, 5, 40);
  choose(0, 3, 20);
  choose(1, 7, 30);
  choose(1, 2, 10);
  choose(0, 6, 5);
  choose(1, 0, 25);
  profile.add_tokens(65);
  SlotCacheOptions options = small();
  options.num_slots = 9;
  options.min_slots_per_layer = 0;
  SlotCache cache = *SlotCache::create(options);
  ASSERT_TRUE(cache.seed(profile));
  std::vector<std::pair<int32_t, int32_t>> order;
  for (const Insertion& insertion : cache.plan_fill(0)) {
    order.emplace_back(insertion.layer, insertion.expert);
    cache.commit_insertion(insertion.slot);
  }
  EXPECT_THAT(order, ElementsAre(Pair(0, 5), Pair(1, 7), Pair(1, 0), Pair(0, 3), Pair(1, 2),
                                 Pair(0, 6), Pair(0, 0), Pair(0, 1), Pair(1, 1)));
  EXPECT_TRUE(cache.check_integrity());
}

TEST(SlotCache, WithoutSlotsEverythingMisses) {
  SlotCacheOptions options = small();
  options.num_slots = 0;
  SlotCache cache = *SlotCache::create(options);
  for (int64_t step = 0; step < 5; ++step) {
    EXPECT_TRUE(cache.use(0, step, std::vector<uint16_t>{1, 2}).hits.empty());
    EXPECT_TRUE(cache.plan_insertions(step).empty());
  }
  EXPECT_TRUE(cache.plan_fill(5).empty());
}

TEST(SlotCache, ImpossibleOptionsAreRefused) {
  const auto refused = [](auto change) {
    SlotCacheOptions options = small();
    change(options);
    return !SlotCache::create(options).has_value();
  };
  EXPECT_FALSE(refused([](SlotCacheOptions&) {}));
  EXPECT_TRUE(refused([](SlotCacheOptions& o) { o.num_layers = 0; }));
  EXPECT_TRUE(refused([](SlotCacheOptions& o) { o.num_layers = 1 << 30; }));
  EXPECT_TRUE(refused([](SlotCacheOptions& o) { o.num_experts = 65536; }));
  EXPECT_TRUE(refused([](SlotCacheOptions& o) { o.num_slots = 17; }));
  EXPECT_TRUE(refused([](SlotCacheOptions& o) { o.num_slots = -1; }));
  EXPECT_TRUE(refused([](SlotCacheOptions& o) { o.slot_bytes = 0; }));
  EXPECT_TRUE(refused([](SlotCacheOptions& o) { o.min_slots_per_layer = 3; }));
  EXPECT_TRUE(refused([](SlotCacheOptions& o) { o.insertion_price = -1; }));
  EXPECT_TRUE(refused(
      [](SlotCacheOptions& o) { o.insertion_price = std::numeric_limits<double>::quiet_NaN(); }));
}

TEST(SlotCache, StepsOfADayDoNotWearTheScoresOut) {
  SlotCache cache = *SlotCache::create(small());
  const int64_t late = int64_t{1} << 40;
  use(cache, 0, late, {3});
  use(cache, 0, late + 1, {3});
  EXPECT_NEAR(cache.log_score(0, 3, late + 1), std::log2(1 + std::exp2(-1.0 / 16)), 1e-4);
}

TEST(SlotCache, AStepAllocatesNothing) {
  SlotCacheOptions options = {.num_layers = 4, .num_experts = 64, .num_slots = 60, .slot_bytes = 1};
  SlotCache cache = *SlotCache::create(options);
  std::vector<uint16_t> ids(40);
  std::vector<int32_t> lent(8);
  std::vector<int32_t> copying;
  copying.reserve(256);
  start_counting_allocations();
  for (int64_t step = 0; step < 500; ++step) {
    for (int32_t layer = 0; layer < 4; ++layer) {
      for (size_t i = 0; i < ids.size(); ++i) {
        ids[i] = static_cast<uint16_t>((i * i + static_cast<size_t>(step / 7)) % 64);
      }
      cache.use(layer, step, ids);
    }
    for (const int32_t slot : copying) cache.commit_insertion(slot);
    copying.clear();
    for (const Insertion& insertion : cache.plan_insertions(step))
      copying.push_back(insertion.slot);
    cache.take_changes();
    if (step % 50 == 49 && cache.lend(lent)) {
      cache.give_back(lent);
      for (const Insertion& insertion : cache.plan_fill(step)) copying.push_back(insertion.slot);
    }
  }
  EXPECT_EQ(stop_counting_allocations(), 0);
  EXPECT_GT(cache.counts().committed, 60);
}

}  // namespace
}  // namespace hotset
