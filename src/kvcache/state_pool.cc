// SPDX-License-Identifier: Apache-2.0
#include "kvcache/state_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace hotset {

Result<StatePool> StatePool::create(const StatePoolShape& shape) {
  StatePool pool;
  pool.shape_ = shape;
  const int64_t bytes = shape.num_slots * shape.slot_floats() * int64_t{sizeof(float)};
  HS_ASSIGN_OR_RETURN(pool.memory_, HugeBuffer::allocate(std::max<int64_t>(bytes, 1)));
  pool.in_use_.assign(static_cast<size_t>(shape.num_slots), false);
  for (int64_t slot = shape.num_slots; slot > 0; --slot) {
    pool.free_.push_back(static_cast<int32_t>(slot - 1));
  }
  return pool;
}

Result<int32_t> StatePool::acquire() {
  if (free_.empty()) {
    return fail(fmt::format("all {} sequence states are in use", shape_.num_slots),
                ErrorKind::kResource);
  }
  const int32_t slot = free_.back();
  free_.pop_back();
  in_use_[static_cast<size_t>(slot)] = true;
  if (shape_.num_layers > 0) {
    std::memset(delta_state(slot, 0), 0, static_cast<size_t>(shape_.slot_floats()) * sizeof(float));
  }
  return slot;
}

void StatePool::release(int32_t slot) {
  HS_CHECK(slot >= 0 && slot < shape_.num_slots && in_use_[static_cast<size_t>(slot)],
           "state slot {} is not in use", slot);
  in_use_[static_cast<size_t>(slot)] = false;
  free_.push_back(slot);
}

void StatePool::copy(int32_t from, int32_t to) {
  if (shape_.num_layers == 0) return;
  std::memcpy(delta_state(to, 0), delta_state(from, 0),
              static_cast<size_t>(shape_.slot_floats()) * sizeof(float));
}

float* StatePool::delta_state(int32_t slot, int64_t layer) {
  auto* base = reinterpret_cast<float*>(memory_.data());
  return base + slot * shape_.slot_floats() + layer * shape_.layer_floats();
}

float* StatePool::conv_state(int32_t slot, int64_t layer) {
  return delta_state(slot, layer) + shape_.delta_floats;
}

}  // namespace hotset
