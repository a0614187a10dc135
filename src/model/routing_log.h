// SPDX-License-Identifier: Apache-2.0
// What routers choose on the GPU, brought to the host for whoever listens (routing_listener.h):
// each layer's choices are copied behind its router, and are all there when the step is over.
//
// A recorded step copies to the same places whenever it is replayed. One thread (the engine's) uses
// this.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "cuda/device_memory.h"
#include "kernels/cuda/queue.h"
#include "kernels/moe.h"

namespace hotset {

class RoutingLog {
 public:
  // Takes pinned memory for a step of max_tokens.
  static Result<std::unique_ptr<RoutingLog>> create(cuda::Runtime& runtime, int64_t num_layers,
                                                    int64_t max_tokens, int32_t top_k);

  // The pieces of this layer come next; −1: of one that is not logged.
  void begin_layer(int64_t layer) {
    layer_ = layer;
    next_row_ = 0;
  }
  // Puts the copy of a piece's choices on the stream. A failure is noted in the queue.
  void add(cuda::Queue& queue, const MoeBatch& batch);

  // Of a step of so many tokens, once the stream has drained: [num_tokens, top_k].
  [[nodiscard]] std::span<const int32_t> ids(int64_t layer, int64_t num_tokens) const {
    return {place(layer, 0), static_cast<size_t>(num_tokens * top_k_)};
  }

 private:
  RoutingLog(int64_t max_tokens, int32_t top_k) : max_tokens_(max_tokens), top_k_(top_k) {}
  [[nodiscard]] int32_t* place(int64_t layer, int64_t row) const {
    return reinterpret_cast<int32_t*>(memory_.data()) + (layer * max_tokens_ + row) * top_k_;
  }

  const int64_t max_tokens_;
  const int32_t top_k_;
  cuda::DeviceMemory memory_;  // pinned [num_layers, max_tokens, top_k]
  int64_t layer_ = -1;
  int64_t next_row_ = 0;
};

}  // namespace hotset
