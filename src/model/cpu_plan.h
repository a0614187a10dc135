// SPDX-License-Identifier: Apache-2.0
// Where RAM goes when the CPU computes, before a weight is read: arithmetic from shapes and bounds.
// What was left open is settled so that it fits; what was asked for and does not fit is refused,
// with figures and with flags that have been counted to be enough.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "experts/placement.h"
#include "model/config.h"
#include "model/language_model.h"
#include "model/weights.h"

namespace hotset {

struct CpuPlan {
  int64_t max_model_len = 0;
  int64_t prefill_chunk = 0;
  int64_t num_pages = 0;  // of the KV cache
  Placement placement = {};
};

// `usable_bytes`: what may be taken of RAM, measured; --ram bounds it.
[[nodiscard]] Result<CpuPlan> plan_cpu(const ModelConfig& config, const WeightPlan& weights,
                                       const ModelOptions& options, int64_t usable_bytes);

}  // namespace hotset
