// SPDX-License-Identifier: Apache-2.0
// Missed experts of a decode step that the GPU reads over PCIe itself, while the CPU computes the
// others: the device memory behind kernels/cuda/expert_exchange.h's FetchRule. Which share is worth
// it is experts/fetch_share_search.h's business, class by class; results do not depend on it.
//
// The engine's thread uses this.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "cuda/device_memory.h"
#include "experts/fetch_share_search.h"
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

  // Of the experts that a layer misses, the share (0…1) that is fetched in steps of this class from
  // now on, on the queue's stream; at first 0. Between steps.
  Status set(int fetch_class, double share);
  // Steps that were recorded while a share was 0 fetch nothing; others follow set().
  [[nodiscard]] bool is_used(int fetch_class) const;
  [[nodiscard]] cuda::FetchRule rule(int fetch_class, int64_t layer) const;

 private:
  // Experts fetched of 0, 1, 2 … missed ones, for one class, and the share they stand for; below 0:
  // the device may have something else.
  struct Table {
    std::vector<int32_t> counts;
    double share = 0;
  };
  ExpertFetch(cuda::Queue& queue, int64_t max_choices) : queue_(queue), max_choices_(max_choices) {}
  Status send_bank(const ModelWeights& host, const ExpertSlots& slots);
  [[nodiscard]] int32_t* device_counts(int fetch_class) const;

  cuda::Queue& queue_;
  int64_t max_choices_ = 0;
  int64_t slot_bytes_ = 0;
  std::array<Table, kNumFetchClasses> tables_;
  std::vector<int64_t> first_expert_;  // of a layer in bank_
  cuda::DeviceMemory bank_;
  cuda::DeviceMemory slots_;
  cuda::DeviceMemory jobs_;
  cuda::DeviceMemory counts_;  // [classes, max_choices + 1], then the number of jobs
};

}  // namespace hotset
