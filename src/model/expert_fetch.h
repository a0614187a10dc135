// SPDX-License-Identifier: Apache-2.0
// Missed experts of a decode step that the GPU reads over PCIe itself, while the CPU computes the
// others: the device memory behind kernels/cuda/expert_exchange.h's FetchRule. Which share is worth
// it is experts/miss_split.h's business; results do not depend on it.
//
// The engine's thread uses this.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cuda/device_memory.h"
#include "kernels/cuda/expert_exchange.h"
#include "kernels/cuda/queue.h"
#include "model/expert_slots.h"
#include "model/weights.h"

namespace hotset {

class ExpertFetch {
 public:
  // Of a layer. A decode step's copies go to slots of their own, which the next layer reuses.
  static constexpr int32_t kMaxFetched = 24;

  [[nodiscard]] static int64_t memory_bytes(const ModelWeights& host, int64_t max_choices);
  // `host`'s banks are pinned; `max_choices` of a layer in a step.
  static Result<std::unique_ptr<ExpertFetch>> create(cuda::Queue& queue, const ModelWeights& host,
                                                     const ExpertSlots& slots, int64_t max_choices);

  // Of the experts that a layer misses, how many are fetched, for 0, 1, 2 … missed (beyond the
  // last, the last). At first: none.
  Status set(std::span<const int32_t> by_missed);
  [[nodiscard]] bool is_used() const { return is_used_; }
  [[nodiscard]] cuda::FetchRule rule(int64_t layer) const;

 private:
  ExpertFetch(cuda::Queue& queue, int64_t max_choices) : queue_(queue), max_choices_(max_choices) {}
  Status send_bank(const ModelWeights& host, const ExpertSlots& slots);

  cuda::Queue& queue_;
  int64_t max_choices_ = 0;
  int64_t slot_bytes_ = 0;
  bool is_used_ = false;
  std::vector<int64_t> first_expert_;  // of a layer in bank_
  cuda::DeviceMemory bank_;
  cuda::DeviceMemory slots_;
  cuda::DeviceMemory jobs_;
  cuda::DeviceMemory counts_;  // [max_choices + 1], then the number of jobs
};

}  // namespace hotset
