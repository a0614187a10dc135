// SPDX-License-Identifier: Apache-2.0
// What a checkpoint's routers do with a drifting text: measured by running it on the CPU, or its
// first layers alone where that says enough.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "routing_report.h"
#include "synth_text.h"

namespace hotset {

inline constexpr int64_t kCheckTokens = 4 * kTopicTokens;

// `most_layers`: 0: all.
[[nodiscard]] Result<RoutingReport> check_routing(const std::string& directory,
                                                  int64_t num_tokens = kCheckTokens,
                                                  TextKind text = TextKind::kDrift,
                                                  int64_t most_layers = 0);

// A Markdown table: some layers and the mean of all.
[[nodiscard]] std::string check_table(const RoutingReport& report);

}  // namespace hotset
