// SPDX-License-Identifier: Apache-2.0
// Slots for the recurrent state of sequences: per linear attention layer the delta-rule matrix
// S fp32 [num_value_heads, key_head_dim, value_head_dim] and the convolution's last inputs
// fp32 [kernel − 1, conv_dim], oldest first. A slot is the whole memory of a sequence's linear
// layers; a copy of it is a snapshot.
//
// One thread (the engine's) uses a pool.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "memory/huge_buffer.h"

namespace hotset {

struct StatePoolShape {
  int64_t num_layers = 0;  // linear attention layers only
  int64_t delta_floats = 0;
  int64_t conv_floats = 0;
  int64_t num_slots = 0;

  [[nodiscard]] int64_t layer_floats() const { return delta_floats + conv_floats; }
  [[nodiscard]] int64_t slot_floats() const { return num_layers * layer_floats(); }
};

class StatePool {
 public:
  static Result<StatePool> create(const StatePoolShape& shape);

  [[nodiscard]] const StatePoolShape& shape() const { return shape_; }
  [[nodiscard]] int64_t num_free() const { return static_cast<int64_t>(free_.size()); }

  // The slot starts zeroed, as a sequence does.
  Result<int32_t> acquire();
  void release(int32_t slot);
  void copy(int32_t from, int32_t to);

  [[nodiscard]] float* delta_state(int32_t slot, int64_t layer);
  [[nodiscard]] float* conv_state(int32_t slot, int64_t layer);

 private:
  StatePoolShape shape_;
  HugeBuffer memory_;
  std::vector<int32_t> free_;
  std::vector<bool> in_use_;
};

}  // namespace hotset
