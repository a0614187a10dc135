// SPDX-License-Identifier: Apache-2.0
// The live expert cache as the simulator drives it: a copy takes one step, as a background stream's
// would.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "expert_cache/baselines.h"
#include "experts/slot_cache.h"

namespace hotset {

class SlotCachePolicy : public CachePolicy {
 public:
  explicit SlotCachePolicy(SlotCache cache) : cache_(std::move(cache)) {}

  [[nodiscard]] std::string name() const override { return "hotset"; }
  [[nodiscard]] int64_t num_insertions() const override { return cache_.counts().begun; }
  [[nodiscard]] SlotCache& cache() { return cache_; }

  int32_t use(int32_t layer, int64_t step, std::span<const uint16_t> ids) override {
    return static_cast<int32_t>(cache_.use(layer, step, ids).hits.size());
  }
  void end_step(int64_t step) override {
    for (const int32_t slot : copying_) cache_.commit_insertion(slot);
    copying_.clear();
    for (const Insertion& insertion : cache_.plan_insertions(step)) {
      copying_.push_back(insertion.slot);
    }
    cache_.take_changes();
  }

 private:
  SlotCache cache_;
  std::vector<int32_t> copying_;
};

}  // namespace hotset
