// SPDX-License-Identifier: Apache-2.0
// The caches that the live expert cache is held against; simulator and tests only.
//
//   lru           a miss is inserted at once for the expert unused for longest, over all layers
//   lru-per-layer … with an even share of slots a layer
//   lfu           a miss is inserted for the one used least often so far, if used as often as it
//   second-touch  LRU over all layers; inserts at the second touch within 8 steps, at most 2 a
//   layer
//                 and step
//   belady        knows the future: keeps what is needed soonest, and does not insert what is
//   needed
//                 last. An upper bound for caches that fetch when missed
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "experts/routing_trace.h"

namespace hotset {

class CachePolicy {
 public:
  virtual ~CachePolicy() = default;
  [[nodiscard]] virtual std::string name() const = 0;
  // A step's ids of a layer; how many of them were resident.
  virtual int32_t use(int32_t layer, int64_t step, std::span<const uint16_t> ids) = 0;
  virtual void end_step(int64_t step) { (void)step; }
  [[nodiscard]] virtual int64_t num_insertions() const = 0;
};

[[nodiscard]] std::unique_ptr<CachePolicy> make_lru(const RoutingShape& shape, int64_t num_slots);
[[nodiscard]] std::unique_ptr<CachePolicy> make_lru_per_layer(const RoutingShape& shape,
                                                              int64_t num_slots);
[[nodiscard]] std::unique_ptr<CachePolicy> make_lfu(const RoutingShape& shape, int64_t num_slots);
[[nodiscard]] std::unique_ptr<CachePolicy> make_second_touch(const RoutingShape& shape,
                                                             int64_t num_slots);
[[nodiscard]] std::unique_ptr<CachePolicy> make_belady(const RoutingTrace& trace,
                                                       int64_t num_slots);

}  // namespace hotset
