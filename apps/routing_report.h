// SPDX-License-Identifier: Apache-2.0
// What routers chose, layer by layer, and as a Markdown table to paste.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "experts/routing_trace.h"
#include "routing_recorder.h"
#include "routing_stats.h"

namespace hotset {

struct RoutingReport {
  RoutingShape shape;
  int64_t num_tokens = 0;
  std::vector<RoutingStats> layers;
  int64_t of_layers = 0;  // the model's, where not all of them were looked at; else 0
};

// Of a recorder that kept the choices.
[[nodiscard]] Result<RoutingReport> report_of(const RoutingRecorder& recorder);

// Some of the layers, evenly, or all where no more are there; then the mean of all. `tokens` says
// whose choices they are: "1,024 tokens of a drifting text".
[[nodiscard]] std::string routing_table(const RoutingReport& report, const std::string& tokens,
                                        int64_t most_rows);

}  // namespace hotset
