// SPDX-License-Identifier: Apache-2.0
// Made-up routing, for when no trace is at hand. Each layer ranks its experts; a step draws top_k
// distinct ones with weight 1 / (rank + 1)^exponent (0: uniform). Between steps `drift` ·
// num_experts pairs of ranks trade places, so that what is hot wanders.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "experts/routing_trace.h"

namespace hotset {

struct SyntheticOptions {
  RoutingShape shape;
  double exponent = 0;
  double drift = 0;
  uint64_t seed = 1;
};

class SyntheticRouting {
 public:
  explicit SyntheticRouting(const SyntheticOptions& options);

  // The next step's ids, [num_layers, top_k]; valid until the next call.
  std::span<const uint16_t> next();

 private:
  void draw(int32_t layer, uint16_t* out);
  void drift(int32_t layer);

  SyntheticOptions options_;
  std::mt19937_64 engine_;
  std::vector<double> cumulative_;     // [num_experts], by rank, ends at 1
  std::vector<uint16_t> ranks_;        // [num_layers, num_experts]: rank → expert
  std::vector<bool> taken_;            // [num_experts]: ranks drawn in this step and layer
  std::vector<double> pending_drift_;  // [num_layers]: fractions of a swap
  std::vector<uint16_t> ids_;
};

}  // namespace hotset
