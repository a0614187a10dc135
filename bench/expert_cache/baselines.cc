// SPDX-License-Identifier: Apache-2.0
#include "expert_cache/baselines.h"

#include <limits>
#include <set>
#include <utility>

namespace hotset {
namespace {

// A cache that lets go of the least (rank, id) of a group of layers; what a rank is differs.
class RankedCache : public CachePolicy {
 public:
  RankedCache(std::string name, const RoutingShape& shape, int64_t num_slots, bool per_layer)
      : shape_(shape),
        name_(std::move(name)),
        per_layer_(per_layer),
        slots_per_group_(per_layer ? num_slots / shape.num_layers : num_slots),
        rank_(static_cast<size_t>(shape.num_layers) * static_cast<size_t>(shape.num_experts), -1),
        resident_(rank_.size(), false),
        groups_(per_layer ? static_cast<size_t>(shape.num_layers) : 1) {}

  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] int64_t num_insertions() const override { return num_insertions_; }

  int32_t use(int32_t layer, int64_t step, std::span<const uint16_t> ids) override {
    int32_t hits = 0;
    for (const uint16_t id : ids) {
      const size_t at = static_cast<size_t>(layer) * static_cast<size_t>(shape_.num_experts) + id;
      auto& group = groups_[per_layer_ ? static_cast<size_t>(layer) : 0];
      const int64_t before = rank_[at];
      rank_[at] = rank_after(at, before, step);
      if (resident_[at]) {
        ++hits;
        group.erase({before, at});
        group.insert({rank_[at], at});
      } else if (slots_per_group_ > 0 && admits(layer, step, before)) {
        insert(group, at, layer);
      }
    }
    return hits;
  }

 protected:
  using Group = std::set<std::pair<int64_t, size_t>>;

  [[nodiscard]] virtual int64_t rank_after(size_t at, int64_t before, int64_t step) = 0;
  [[nodiscard]] virtual bool admits(int32_t layer, int64_t step, int64_t rank_before) = 0;
  [[nodiscard]] virtual bool displaces(int64_t rank, int64_t victim_rank) const = 0;
  virtual void inserted(int32_t layer) { (void)layer; }

  RoutingShape shape_;

 private:
  void insert(Group& group, size_t at, int32_t layer) {
    if (static_cast<int64_t>(group.size()) == slots_per_group_) {
      const auto victim = group.begin();
      if (!displaces(rank_[at], victim->first)) return;
      resident_[victim->second] = false;
      group.erase(victim);
    }
    resident_[at] = true;
    group.insert({rank_[at], at});
    ++num_insertions_;
    inserted(layer);
  }

  std::string name_;
  bool per_layer_;
  int64_t slots_per_group_;
  std::vector<int64_t> rank_;
  std::vector<bool> resident_;
  std::vector<Group> groups_;
  int64_t num_insertions_ = 0;
};

class Lru : public RankedCache {
 public:
  using RankedCache::RankedCache;

 protected:
  int64_t rank_after(size_t, int64_t, int64_t step) override { return step; }
  bool admits(int32_t, int64_t, int64_t) override { return true; }
  [[nodiscard]] bool displaces(int64_t, int64_t) const override { return true; }
};

class Lfu : public RankedCache {
 public:
  using RankedCache::RankedCache;

 protected:
  int64_t rank_after(size_t, int64_t before, int64_t) override { return before + 1; }
  bool admits(int32_t, int64_t, int64_t) override { return true; }
  [[nodiscard]] bool displaces(int64_t rank, int64_t victim_rank) const override {
    return rank >= victim_rank;
  }
};

class SecondTouch : public Lru {
 public:
  SecondTouch(const RoutingShape& shape, int64_t num_slots)
      : Lru("second-touch", shape, num_slots, false),
        last_step_(static_cast<size_t>(shape.num_layers), -1),
        begun_(static_cast<size_t>(shape.num_layers), 0) {}

 protected:
  bool admits(int32_t layer, int64_t step, int64_t before) override {
    const auto at = static_cast<size_t>(layer);
    if (std::exchange(last_step_[at], step) != step) begun_[at] = 0;
    return before >= 0 && step - before <= kWindow && begun_[at] < kMaxPerStep;
  }
  void inserted(int32_t layer) override { ++begun_[static_cast<size_t>(layer)]; }

 private:
  static constexpr int64_t kWindow = 8;
  static constexpr int32_t kMaxPerStep = 2;
  std::vector<int64_t> last_step_;
  std::vector<int32_t> begun_;
};

class Belady : public CachePolicy {
 public:
  Belady(const RoutingTrace& trace, int64_t num_slots)
      : shape_(trace.shape()), num_slots_(static_cast<size_t>(num_slots)) {
    const auto ids =
        static_cast<size_t>(shape_.num_layers) * static_cast<size_t>(shape_.num_experts);
    std::vector<int64_t> next(ids, kNever);
    const int64_t per_step = shape_.ids_per_step();
    next_use_.resize(static_cast<size_t>(trace.num_steps() * per_step));
    for (int64_t i = static_cast<int64_t>(next_use_.size()) - 1; i >= 0; --i) {
      const auto layer = static_cast<int32_t>(i % per_step / shape_.top_k);
      const auto rank = static_cast<size_t>(i % shape_.top_k);
      const size_t at = id_of(layer, trace.ids(i / per_step, layer)[rank]);
      next_use_[static_cast<size_t>(i)] = std::exchange(next[at], i / per_step);
    }
    resident_until_.assign(ids, kAbsent);
  }

  [[nodiscard]] std::string name() const override { return "belady (bound)"; }
  [[nodiscard]] int64_t num_insertions() const override { return num_insertions_; }

  int32_t use(int32_t layer, int64_t step, std::span<const uint16_t> ids) override {
    int32_t hits = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      const size_t at = id_of(layer, ids[i]);
      const int64_t next = next_use_[static_cast<size_t>(step * shape_.ids_per_step() +
                                                         int64_t{layer} * shape_.top_k) +
                                     i];
      if (resident_until_[at] != kAbsent) {
        ++hits;
        drop(at);
        keep(at, next);
      } else if (next != kNever) {
        if (order_.size() == num_slots_) {
          if (order_.empty() || order_.rbegin()->first <= next) continue;
          drop(order_.rbegin()->second);
        }
        keep(at, next);
        ++num_insertions_;
      }
    }
    return hits;
  }

 private:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  static constexpr int64_t kAbsent = -1;

  [[nodiscard]] size_t id_of(int32_t layer, uint16_t expert) const {
    return static_cast<size_t>(layer) * static_cast<size_t>(shape_.num_experts) + expert;
  }
  void drop(size_t at) {
    order_.erase({resident_until_[at], at});
    resident_until_[at] = kAbsent;
  }
  void keep(size_t at, int64_t next) {
    resident_until_[at] = next;
    order_.insert({next, at});
  }

  RoutingShape shape_;
  size_t num_slots_;
  std::vector<int64_t> next_use_;        // [num_steps, num_layers, top_k]
  std::vector<int64_t> resident_until_;  // [num_layers, num_experts]
  std::set<std::pair<int64_t, size_t>> order_;
  int64_t num_insertions_ = 0;
};

}  // namespace

std::unique_ptr<CachePolicy> make_lru(const RoutingShape& shape, int64_t num_slots) {
  return std::make_unique<Lru>("lru", shape, num_slots, false);
}
std::unique_ptr<CachePolicy> make_lru_per_layer(const RoutingShape& shape, int64_t num_slots) {
  return std::make_unique<Lru>("lru-per-layer", shape, num_slots, true);
}
std::unique_ptr<CachePolicy> make_lfu(const RoutingShape& shape, int64_t num_slots) {
  return std::make_unique<Lfu>("lfu", shape, num_slots, false);
}
std::unique_ptr<CachePolicy> make_second_touch(const RoutingShape& shape, int64_t num_slots) {
  return std::make_unique<SecondTouch>(shape, num_slots);
}
std::unique_ptr<CachePolicy> make_belady(const RoutingTrace& trace, int64_t num_slots) {
  return std::make_unique<Belady>(trace, num_slots);
}

}  // namespace hotset
