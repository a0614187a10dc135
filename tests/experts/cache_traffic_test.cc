// SPDX-License-Identifier: Apache-2.0
// What the live cache achieves on made-up traffic, against textbook caches on the same traffic.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "expert_cache/baselines.h"
#include "expert_cache/slot_cache_policy.h"
#include "expert_cache/synthetic_routing.h"
#include "experts/routing_profile.h"

namespace hotset {
namespace {

constexpr RoutingShape kShape = {.num_layers = 8, .num_experts = 256, .top_k = 6};
constexpr int32_t kSlots = 8 * 256 * 3 / 10;

SlotCacheOptions cache_options() {
  return {.num_layers = kShape.num_layers,
          .num_experts = kShape.num_experts,
          .num_slots = kSlots,
          .slot_bytes = 1};
}

std::vector<uint16_t> synthetic_ids(double exponent, double drift, int64_t steps, uint64_t seed) {
  SyntheticRouting routing({.shape = kShape, .exponent = exponent, .drift = drift, .seed = seed});
  std::vector<uint16_t> ids;
  for (int64_t step = 0; step < steps; ++step) {
    const auto next = routing.next();
    ids.insert(ids.end(), next.begin(), next.end());
  }
  return ids;
}

RoutingTrace trace_of(std::vector<uint16_t> ids) {
  return *RoutingTrace::from_ids(kShape, std::move(ids), "test");
}

struct Outcome {
  double hit_rate = 0;
  int64_t insertions = 0;
};

// Of the steps from `first` on.
Outcome replay(const RoutingTrace& trace, CachePolicy& policy, int64_t first) {
  int64_t hits = 0, choices = 0, before = 0;
  for (int64_t step = 0; step < trace.num_steps(); ++step) {
    if (step == first) before = policy.num_insertions();
    for (int32_t layer = 0; layer < kShape.num_layers; ++layer) {
      const int32_t hit = policy.use(layer, step, trace.ids(step, layer));
      if (step < first) continue;
      hits += hit;
      choices += kShape.top_k;
    }
    policy.end_step(step);
  }
  return {static_cast<double>(hits) / static_cast<double>(choices),
          policy.num_insertions() - before};
}

Outcome replay_live(const RoutingTrace& trace, int64_t first) {
  SlotCachePolicy live(*SlotCache::create(cache_options()));
  const Outcome outcome = replay(trace, live, first);
  const Status status = live.cache().check_integrity();
  EXPECT_TRUE(status) << status.error().message;
  return outcome;
}

TEST(CacheTraffic, UniformRoutingStopsInsertions) {
  const RoutingTrace trace = trace_of(synthetic_ids(0, 0, 900, 3));
  const Outcome live = replay_live(trace, 400);
  const auto choices = 500.0 * static_cast<double>(kShape.ids_per_step());
  // A seventieth of a percent of the choices; LRU inserts at 70 % of them.
  EXPECT_LE(static_cast<double>(live.insertions), 0.00015 * choices) << live.insertions;
  EXPECT_NEAR(live.hit_rate, 0.3, 0.02);
}

struct Skew {
  double exponent, drift;
};

TEST(CacheTraffic, SkewedRoutingComesCloseToLruWithAFractionOfItsTraffic) {
  for (const Skew skew : {Skew{1.2, 0.001}, Skew{1.2, 0.004}, Skew{0.8, 0.002}}) {
    const RoutingTrace trace = trace_of(synthetic_ids(skew.exponent, skew.drift, 1000, 5));
    const auto lru = make_lru(kShape, kSlots);
    const auto best = make_belady(trace, kSlots);
    const Outcome by_lru = replay(trace, *lru, 300);
    const Outcome bound = replay(trace, *best, 300);
    const Outcome live = replay_live(trace, 300);
    SCOPED_TRACE(testing::Message() << "exponent " << skew.exponent << ", drift " << skew.drift
                                    << ": " << live.hit_rate << " with " << live.insertions
                                    << " insertions; LRU " << by_lru.hit_rate << " with "
                                    << by_lru.insertions << "; at most " << bound.hit_rate);
    EXPECT_GE(live.hit_rate, by_lru.hit_rate - 0.03);
    EXPECT_LE(live.hit_rate, bound.hit_rate);
    EXPECT_LE(by_lru.hit_rate, bound.hit_rate);
    EXPECT_LE(3 * live.insertions, by_lru.insertions);
  }
}

TEST(CacheTraffic, AdmissionOpensAgainWhenRoutingBecomesSkewed) {
  std::vector<uint16_t> ids = synthetic_ids(0, 0, 600, 1);
  const std::vector<uint16_t> skewed = synthetic_ids(1.2, 0.001, 600, 2);
  ids.insert(ids.end(), skewed.begin(), skewed.end());
  const RoutingTrace trace = trace_of(std::move(ids));
  const auto lru = make_lru(kShape, kSlots);
  const Outcome live = replay_live(trace, 900);
  EXPECT_GE(live.hit_rate, replay(trace, *lru, 900).hit_rate - 0.03);
}

TEST(CacheTraffic, AProfileOfThePastMakesAGoodStart) {
  const std::vector<uint16_t> ids = synthetic_ids(1.1, 0.0005, 500, 8);
  const auto half = ids.begin() + 400 * kShape.ids_per_step();
  const RoutingTrace past = trace_of({ids.begin(), half});
  const RoutingTrace now = trace_of({half, ids.end()});
  const auto start = [&](bool seeded) {
    SlotCache cache = *SlotCache::create(cache_options());
    EXPECT_TRUE(!seeded || cache.seed(*RoutingProfile::from_trace(past)));
    for (const Insertion& insertion : cache.plan_fill(0)) cache.commit_insertion(insertion.slot);
    SlotCachePolicy live(std::move(cache));
    return replay(now, live, 0).hit_rate;
  };
  EXPECT_GT(start(true), start(false) + 0.1);
}

// A change of subject in all layers at once, and room for one insertion a step: each layer gets its
// turn.
TEST(CacheTraffic, AScarceBudgetIsSharedByTurns) {
  SlotCacheOptions options = cache_options();
  options.step_budget_bytes = 1;
  SlotCache cache = *SlotCache::create(options);
  for (const Insertion& insertion : cache.plan_fill(0)) cache.commit_insertion(insertion.slot);
  std::vector<int> begun(static_cast<size_t>(kShape.num_layers), 0);
  std::vector<uint16_t> ids(6);
  for (int64_t step = 0; step < 48; ++step) {
    for (int32_t layer = 0; layer < kShape.num_layers; ++layer) {
      // Layer 0 asks for three times as many experts as the others; all of them repeat.
      ids.clear();
      const int count = layer == 0 ? 18 : 6;
      for (int i = 0; i < count; ++i) ids.push_back(static_cast<uint16_t>(200 + i));
      cache.use(layer, step, ids);
    }
    for (const Insertion& insertion : cache.plan_insertions(step)) {
      ++begun[static_cast<size_t>(insertion.layer)];
      cache.commit_insertion(insertion.slot);
    }
  }
  const auto [least, most] = std::minmax_element(begun.begin(), begun.end());
  EXPECT_GE(*least, 5) << "of 6 turns each, one of them in the drain";
  EXPECT_LE(*most - *least, 1);
}

// One layer in heavy use can't take the others' last slots.
TEST(CacheTraffic, NoLayerFallsBelowItsMinimumForAnother) {
  SlotCacheOptions options = cache_options();
  options.insertion_price = 0;
  SlotCache cache = *SlotCache::create(options);
  for (const Insertion& insertion : cache.plan_fill(0)) cache.commit_insertion(insertion.slot);
  std::vector<uint16_t> all;
  for (int i = 0; i < kShape.num_experts; ++i) all.push_back(static_cast<uint16_t>(i));
  for (int64_t step = 0; step < 600; ++step) {
    cache.use(3, step, all);
    for (const Insertion& insertion : cache.plan_insertions(step)) {
      cache.commit_insertion(insertion.slot);
    }
  }
  const int32_t minimum = kSlots / kShape.num_layers / 2;
  for (int32_t layer = 0; layer < kShape.num_layers; ++layer) {
    EXPECT_GE(cache.num_resident(layer), layer == 3 ? kShape.num_experts : minimum) << layer;
  }
}

// The baselines are held to numbers worked out by hand.
TEST(CacheBaselines, FollowTheirDefinitions) {
  const RoutingShape shape = {.num_layers = 1, .num_experts = 4, .top_k = 1};
  const RoutingTrace trace = *RoutingTrace::from_ids(shape, {0, 1, 0, 2, 0, 1, 3, 1, 0, 0}, "test");
  const auto hits = [&](CachePolicy& policy) {
    int32_t sum = 0;
    for (int64_t step = 0; step < trace.num_steps(); ++step) {
      sum += policy.use(0, step, trace.ids(step, 0));
    }
    return sum;
  };
  EXPECT_EQ(hits(*make_lru(shape, 2)), 4);            // 0·0·1·0: steps 2, 4, 7, 9
  EXPECT_EQ(hits(*make_lru_per_layer(shape, 2)), 4);  // one layer: the same
  EXPECT_EQ(hits(*make_lfu(shape, 2)), 5);            // 0 stays: steps 2, 4, 7, 8, 9
  EXPECT_EQ(hits(*make_belady(trace, 2)), 6);  // keeps 0 and 1: all but the first of each, 2, 3
  EXPECT_EQ(hits(*make_second_touch(shape, 2)), 4);  // 0 from step 2, 1 from step 5
  EXPECT_EQ(hits(*make_lru(shape, 0)), 0);
  EXPECT_EQ(hits(*make_belady(trace, 0)), 0);
}

TEST(CacheBaselines, SyntheticRoutingIsDeterministicAndDistinct) {
  const auto first = synthetic_ids(1.1, 0.01, 20, 9);
  EXPECT_EQ(first, synthetic_ids(1.1, 0.01, 20, 9));
  EXPECT_NE(first, synthetic_ids(1.1, 0.01, 20, 10));
  EXPECT_TRUE(RoutingTrace::from_ids(kShape, first, "test"));  // repeats would be refused
}

}  // namespace
}  // namespace hotset
