// SPDX-License-Identifier: Apache-2.0
// Random sequences of everything a mechanism may do, against a model that keeps the whole history
// and recomputes every value from its definition.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "experts/slot_cache.h"

namespace hotset {
namespace {

using Id = std::pair<int32_t, int32_t>;  // layer, expert

struct Touch {
  int64_t step;
  int32_t tokens;
};
struct Eviction {
  int64_t step = 0;
  double score = 0;
  int64_t last_use = 0;
};

class NaiveModel {
 public:
  NaiveModel(const SlotCacheOptions& options, uint64_t seed)
      : options_(options), cache_(*SlotCache::create(options)), engine_(seed) {}

  void run(int num_steps) {
    for (step_ = 0; step_ < num_steps; ++step_) {
      for (int32_t layer = 0; layer < options_.num_layers; ++layer) use(layer);
      mechanism();
      plan();
      if (step_ % 16 == 0) check_all();
      if (::testing::Test::HasFailure()) return;
    }
    EXPECT_GT(num_insertions_, 0);
  }

 private:
  size_t below(size_t n) { return engine_() % n; }
  bool one_in(size_t n) { return below(n) == 0; }

  [[nodiscard]] double score(const Id& id, int64_t at) const {
    double sum = 0;
    const auto found = history_.find(id);
    if (found == history_.end()) return 0;
    for (const Touch& touch : found->second) {
      if (touch.step > at) continue;
      sum += touch.tokens *
             std::exp2(-static_cast<double>(at - touch.step) / options_.half_life_steps);
    }
    return sum;
  }
  [[nodiscard]] int64_t last_use(const Id& id, int64_t at) const {
    const auto found = history_.find(id);
    int64_t last = -1;
    if (found == history_.end()) return last;
    for (const Touch& touch : found->second) {
      if (touch.step <= at) last = touch.step;
    }
    return last;
  }
  [[nodiscard]] bool touched_twice(const Id& id) const {
    const auto& touches = history_.at(id);
    if (touches.back().tokens > 1) return true;
    return touches.size() > 1 &&
           touches.back().step - touches[touches.size() - 2].step <= options_.window_steps;
  }

  // Experts of low number are hot, and the hot end moves along as time passes.
  void use(int32_t layer) {
    std::vector<uint16_t> ids;
    const size_t num_tokens = one_in(20) ? 1 + below(6) : 1;
    for (size_t i = 0; i < 3 * num_tokens; ++i) {
      const double u = static_cast<double>(below(10000)) / 10000;
      const auto rank = static_cast<size_t>(u * u * u * options_.num_experts);
      ids.push_back(static_cast<uint16_t>((rank + static_cast<size_t>(step_) / 200) %
                                          static_cast<size_t>(options_.num_experts)));
    }
    std::map<int32_t, int32_t> tokens;
    for (const uint16_t id : ids) ++tokens[id];
    const LayerUses uses = cache_.use(layer, step_, ids);
    EXPECT_EQ(uses.hits.size() + uses.misses.size(), tokens.size());
    for (const auto& part : {uses.hits, uses.misses}) {
      for (const ExpertUse& use : part) {
        EXPECT_EQ(use.tokens, tokens.at(use.expert));
        const auto slot = visible_.find({layer, use.expert});
        EXPECT_EQ(use.slot, slot == visible_.end() ? kNoSlot : slot->second);
        tokens.erase(use.expert);
        history_[{layer, use.expert}].push_back({step_, use.tokens});
      }
    }
    EXPECT_TRUE(tokens.empty());
  }

  // Copies end in any order after any time; some fail; slots are lent and come back.
  void mechanism() {
    for (auto it = copying_.begin(); it != copying_.end();) {
      if (one_in(3)) {
        ++it;
        continue;
      }
      if (one_in(12)) {
        cache_.abort_insertion(it->first);
      } else {
        cache_.commit_insertion(it->first);
      }
      it = copying_.erase(it);
    }
    apply_changes();
    if (lent_.empty() && one_in(50)) {
      lent_.resize(1 + below(4));
      if (!cache_.lend(lent_)) lent_.clear();
      for (const int32_t slot : lent_) evictions_.erase(slot);
      apply_changes();
    } else if (!lent_.empty() && one_in(5)) {
      cache_.give_back(lent_);
      lent_.clear();
      if (one_in(2)) {
        for (const Insertion& insertion : cache_.plan_fill(step_)) {
          EXPECT_TRUE(
              copying_.emplace(insertion.slot, Id{insertion.layer, insertion.expert}).second);
        }
      }
    }
  }

  void plan() {
    const bool had_free = cache_.num_free() > 0;
    const std::map<Id, int32_t> before = visible_;
    const auto planned = cache_.plan_insertions(step_);
    const std::vector<Insertion> insertions(planned.begin(), planned.end());
    apply_changes();
    for (const auto& [id, slot] : before) {
      if (visible_.count(id)) continue;
      const int64_t last = last_use(id, step_);
      if (last >= 0) {
        EXPECT_GE(step_ - last, options_.drain_steps) << "evicted while in use";
      }
      evictions_[slot] = {step_, score(id, step_), last};
    }
    std::map<int32_t, int32_t> per_layer;
    for (const Insertion& insertion : insertions) {
      ++per_layer[insertion.layer];
      check_insertion(insertion, had_free);
    }
    for (const auto& [layer, count] : per_layer) EXPECT_LE(count, options_.max_per_layer_step);
    if (options_.step_budget_bytes > 0) {
      EXPECT_LE(static_cast<int64_t>(insertions.size()) * options_.slot_bytes,
                options_.step_budget_bytes);
    }
    num_insertions_ += static_cast<int64_t>(insertions.size());
  }

  void check_insertion(const Insertion& insertion, bool had_free) {
    const Id id{insertion.layer, insertion.expert};
    for (const auto& [other, slot] : visible_) {
      EXPECT_NE(slot, insertion.slot) << "the slot is visible as " << other.first;
    }
    EXPECT_EQ(visible_.count(id), 0u);
    for (const auto& [slot, other] : copying_) EXPECT_NE(other, id) << "already copied to " << slot;
    EXPECT_TRUE(copying_.emplace(insertion.slot, id).second);
    const auto evicted = evictions_.find(insertion.slot);
    if (evicted == evictions_.end()) {
      EXPECT_TRUE(had_free);
      return;
    }
    const Eviction& victim = evicted->second;
    EXPECT_GE(step_ - victim.step, options_.drain_steps);
    EXPECT_TRUE(touched_twice(id) || last_use(id, victim.step) != history_.at(id).back().step);
    EXPECT_GT(score(id, victim.step) * (1 + 1e-9), victim.score);
    EXPECT_GE(last_use(id, victim.step), victim.last_use);
    EXPECT_LE(victim.step - last_use(id, victim.step), options_.window_steps);
    evictions_.erase(evicted);
  }

  void apply_changes() {
    for (const TableChange& change : cache_.take_changes()) {
      const Id id{change.layer, change.expert};
      if (change.slot == kNoSlot) {
        visible_.erase(id);
      } else {
        visible_[id] = change.slot;
      }
    }
  }

  void check_all() {
    const Status status = cache_.check_integrity();
    EXPECT_TRUE(status) << status.error().message;
    std::set<int32_t> slots;
    for (int32_t layer = 0; layer < options_.num_layers; ++layer) {
      for (int32_t expert = 0; expert < options_.num_experts; ++expert) {
        const auto slot = visible_.find({layer, expert});
        EXPECT_EQ(cache_.slot_of(layer, expert), slot == visible_.end() ? kNoSlot : slot->second);
        EXPECT_TRUE(slot == visible_.end() || slots.insert(slot->second).second);
        const double naive = score({layer, expert}, step_);
        if (naive > 1e-9) {
          EXPECT_NEAR(cache_.log_score(layer, expert, step_), std::log2(naive), 1e-6);
        }
      }
    }
  }

  SlotCacheOptions options_;
  SlotCache cache_;
  std::mt19937_64 engine_;
  int64_t step_ = 0;
  int64_t num_insertions_ = 0;
  std::map<Id, std::vector<Touch>> history_;
  std::map<Id, int32_t> visible_;          // as the mechanism knows it
  std::map<int32_t, Id> copying_;          // by slot
  std::map<int32_t, Eviction> evictions_;  // by slot, until it is filled again
  std::vector<int32_t> lent_;
};

struct Case {
  const char* name;
  int32_t slots, drain, per_layer, budget, in_flight;
};

class SlotCacheModel : public ::testing::TestWithParam<Case> {};

TEST_P(SlotCacheModel, KeepsItsPromises) {
  const Case& c = GetParam();
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    NaiveModel model({.num_layers = 3,
                      .num_experts = 16,
                      .num_slots = c.slots,
                      .slot_bytes = 1000,
                      .insertion_price = 0.25,
                      .max_per_layer_step = c.per_layer,
                      .step_budget_bytes = c.budget,
                      .max_in_flight = c.in_flight,
                      .drain_steps = c.drain},
                     seed);
    model.run(900);
    if (HasFailure()) FAIL() << c.name << ", seed " << seed;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, SlotCacheModel,
    ::testing::Values(Case{"NoDrain", 12, 0, 2, 0, 64}, Case{"OneStep", 12, 1, 2, 0, 64},
                      Case{"ThreeSteps", 15, 3, 1, 0, 64}, Case{"Budget", 20, 1, 2, 2999, 64},
                      Case{"OneInFlight", 9, 2, 2, 0, 1}, Case{"OneSlot", 1, 1, 1, 0, 64}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace hotset
