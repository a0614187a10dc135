// SPDX-License-Identifier: Apache-2.0
// Who computes a layer's experts: the one line of forward() that differs between backends.
#pragma once

#include <cstdint>
#include <utility>

#include "kernels/cpu/queue.h"
#include "kernels/moe.h"
#include "model/routing_listener.h"
#include "model/weights.h"
#include "telemetry/stage_clock.h"

namespace hotset {

template <typename Queue>
class ExpertsRunner;

// All experts of a layer on the CPU, where they lie.
template <>
class ExpertsRunner<cpu::Queue> {
 public:
  // Around all pieces of a layer, in a step of so many tokens.
  void begin_layer(int64_t /*layer*/, int64_t /*num_tokens*/) {}
  void end_layer(int64_t /*layer*/, int64_t /*num_tokens*/) {}
  // Is the next layer's router to see this layer's input as well (gpu_experts.h)?
  [[nodiscard]] static constexpr bool predicts_next(int64_t /*layer*/, int64_t /*num_tokens*/) {
    return false;
  }
  // y ← the experts that `batch` chose, for layer number `layer`.
  void run(cpu::Queue& queue, int64_t layer, const LayerWeights& weights, const MoeBatch& batch,
           float* y);
  // What the chosen experts weigh, each counted once; 0 without a clock.
  [[nodiscard]] int64_t chosen_bytes(const LayerWeights& weights, const MoeBatch& batch) const;
  void listen(RoutingListener listener) { listener_ = std::move(listener); }

 private:
  RoutingListener listener_;
};

}  // namespace hotset
