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

// How slots are cleared and copied where they lie, for slots outside of host memory.
class StateMemory {
 public:
  virtual ~StateMemory() = default;
  [[nodiscard]] virtual float* data() const = 0;  // slot 0
  virtual void clear(float* at, int64_t count) = 0;
  virtual void copy(float* to, const float* from, int64_t count) = 0;
};

class StatePool {
 public:
  static Result<StatePool> create(const StatePoolShape& shape);  // in host memory
  // In `memory`, of num_slots · slot_floats() floats, which outlives the pool.
  static StatePool create_in(const StatePoolShape& shape, StateMemory& memory);

  [[nodiscard]] const StatePoolShape& shape() const { return shape_; }
  [[nodiscard]] int64_t num_free() const { return static_cast<int64_t>(free_.size()); }

  // The slot starts zeroed, as a sequence does.
  Result<int32_t> acquire();
  void release(int32_t slot);
  void copy(int32_t from, int32_t to);

  // A layer's part begins at layer · shape().layer_floats(): delta_floats of S, then the
  // convolution's inputs.
  [[nodiscard]] float* slot_data(int32_t slot) const { return base_ + slot * shape_.slot_floats(); }

 private:
  explicit StatePool(const StatePoolShape& shape);

  StatePoolShape shape_;
  HugeBuffer owned_;
  StateMemory* elsewhere_ = nullptr;
  float* base_ = nullptr;
  std::vector<int32_t> free_;
  std::vector<bool> in_use_;
};

}  // namespace hotset
