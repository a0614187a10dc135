// SPDX-License-Identifier: Apache-2.0
#include "kvcache/state_pool.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"

namespace hotset {

Result<StatePool> StatePool::create(const StatePoolShape& shape) {
  StatePool pool = StatePool(shape);
  const int64_t bytes = shape.num_slots * shape.slot_floats() * int64_t{sizeof(float)};
  HS_ASSIGN_OR_RETURN(pool.owned_, HugeBuffer::allocate(std::max<int64_t>(bytes, 1)));
  pool.base_ = reinterpret_cast<float*>(pool.owned_.data());
  return pool;
}

StatePool StatePool::create_in(const StatePoolShape& shape, StateMemory& memory) {
  StatePool pool = StatePool(shape);
  pool.elsewhere_ = &memory;
  pool.base_ = memory.data();
  return pool;
}

StatePool::StatePool(const StatePoolShape& shape) : shape_(shape) {
  in_use_.assign(static_cast<size_t>(shape.num_slots), false);
  for (int64_t slot = shape.num_slots; slot > 0; --slot) {
    free_.push_back(static_cast<int32_t>(slot - 1));
  }
}

Result<int32_t> StatePool::acquire() {
  if (free_.empty()) {
    return fail(fmt::format("all {} sequence states are in use", shape_.num_slots),
                ErrorKind::kResource);
  }
  const int32_t slot = free_.back();
  free_.pop_back();
  in_use_[static_cast<size_t>(slot)] = true;
  if (elsewhere_ != nullptr) {
    elsewhere_->clear(slot_data(slot), shape_.slot_floats());
  } else {
    std::fill_n(slot_data(slot), shape_.slot_floats(), 0.0f);
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
  if (elsewhere_ != nullptr) {
    elsewhere_->copy(slot_data(to), slot_data(from), shape_.slot_floats());
  } else {
    std::copy_n(slot_data(from), shape_.slot_floats(), slot_data(to));
  }
}

}  // namespace hotset
