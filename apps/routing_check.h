// SPDX-License-Identifier: Apache-2.0
// What a checkpoint's routers do with a drifting text: measured by running it on the CPU.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "routing_stats.h"
#include "synth_text.h"

namespace hotset {

inline constexpr int64_t kCheckTokens = 4 * kTopicTokens;

struct RoutingCheck {
  std::vector<RoutingStats> layers;
  int64_t num_tokens = 0;
  int64_t num_experts = 0;
  int64_t top_k = 0;
};

[[nodiscard]] Result<RoutingCheck> check_routing(const std::string& directory,
                                                 int64_t num_tokens = kCheckTokens,
                                                 TextKind text = TextKind::kDrift);

// A Markdown table: some layers and the mean of all.
[[nodiscard]] std::string routing_table(const RoutingCheck& check);

}  // namespace hotset
