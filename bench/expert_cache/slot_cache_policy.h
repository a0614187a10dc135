// SPDX-License-Identifier: Apache-2.0
// The live expert cache as one of the simulator's policies.
#pragma once

#include <string>
#include <utility>

#include "expert_cache/baselines.h"
#include "experts/slot_cache_replay.h"

namespace hotset {

class SlotCachePolicy : public CachePolicy {
 public:
  explicit SlotCachePolicy(SlotCache cache) : replay_(std::move(cache)) {}

  [[nodiscard]] std::string name() const override { return "hotset"; }
  [[nodiscard]] int64_t num_insertions() const override { return replay_.cache().counts().begun; }
  [[nodiscard]] const SlotCache& cache() const { return replay_.cache(); }

  int32_t use(int32_t layer, int64_t step, std::span<const uint16_t> ids) override {
    return replay_.use(layer, step, ids);
  }
  void end_step(int64_t step) override { replay_.end_step(step); }

 private:
  SlotCacheReplay replay_;
};

}  // namespace hotset
