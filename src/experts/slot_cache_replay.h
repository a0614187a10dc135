// SPDX-License-Identifier: Apache-2.0
// Drives a slot cache through recorded routing as an engine would: copies that a step begins are
// over when the next one ends, as a background stream's would be.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "experts/slot_cache.h"

namespace hotset {

class SlotCacheReplay {
 public:
  explicit SlotCacheReplay(SlotCache cache) : cache_(std::move(cache)) {}

  // Fills the free slots, as a load does.
  void fill() {
    for (const Insertion& insertion : cache_.plan_fill(0)) cache_.commit_insertion(insertion.slot);
  }
  // How many of the distinct experts among `ids` were there.
  int32_t use(int32_t layer, int64_t step, std::span<const uint16_t> ids) {
    return static_cast<int32_t>(cache_.use(layer, step, ids).hits.size());
  }
  void end_step(int64_t step) {
    for (const int32_t slot : copying_) cache_.commit_insertion(slot);
    copying_.clear();
    for (const Insertion& insertion : cache_.plan_insertions(step)) {
      copying_.push_back(insertion.slot);
    }
    cache_.take_changes();
  }
  [[nodiscard]] const SlotCache& cache() const { return cache_; }

 private:
  SlotCache cache_;
  std::vector<int32_t> copying_;
};

}  // namespace hotset
