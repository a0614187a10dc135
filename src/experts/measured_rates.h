// SPDX-License-Identifier: Apache-2.0
// Rates of a machine that correct themselves: every layer that was split between the CPU and PCIe
// says how long each took, and the next layer is split by that (miss_split.h). What is computed
// does not depend on it, only who computes it.
#pragma once

#include <cstdint>
#include <span>

#include "experts/miss_split.h"
#include "experts/speed_model.h"

namespace hotset {

class MeasuredRates {
 public:
  // All rates that split_misses() reads are above 0.
  explicit MeasuredRates(const MachineRates& start) : rates_(start) {}

  [[nodiscard]] const MachineRates& now() const { return rates_; }

  // The CPU computed experts with so many tokens each while PCIe was copying (or was not). Corrects
  // what bounds most of them: reading, or arithmetic. What one side reaches alone is corrected as
  // what it reaches beside the other: a side that got no work would else never be asked again.
  void cpu_took(const ExpertCost& cost, std::span<const int32_t> tokens, bool overlapped,
                double seconds);
  // PCIe copied so much while the CPU was computing.
  void fetch_took(int64_t bytes, double seconds);

 private:
  MachineRates rates_;
};

}  // namespace hotset
