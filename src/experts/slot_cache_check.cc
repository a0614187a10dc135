// SPDX-License-Identifier: Apache-2.0
// SlotCache::check_integrity: what must hold between its tables at any time between two calls.
#include <fmt/format.h>

#include "experts/slot_cache.h"

namespace hotset {

Status SlotCache::check_integrity() const {
  for (const std::string& problem :
       {slot_problem(), expert_problem(), count_problem(), residents_.problem()}) {
    if (!problem.empty()) return fail("expert cache: " + problem, ErrorKind::kInternal);
  }
  return {};
}

// Every slot is what its state says, and is known in exactly one place.
std::string SlotCache::slot_problem() const {
  size_t num_free = 0, num_draining = 0, in_flight = 0;
  for (int32_t slot = 0; slot < options_.num_slots; ++slot) {
    const Slot& s = slots_[static_cast<size_t>(slot)];
    const size_t id = id_of(s.layer, s.expert);
    const bool coming = s.state == SlotState::kInserting || s.state == SlotState::kDraining;
    num_free += s.state == SlotState::kFree ? 1 : 0;
    num_draining += s.state == SlotState::kDraining ? 1 : 0;
    in_flight += coming ? 1 : 0;
    if (s.state == SlotState::kResident && table_[id] != slot) {
      return fmt::format("slot {} holds layer {} expert {}, which is at {}", slot, s.layer,
                         s.expert, table_[id]);
    }
    if (coming && (!experts_[id].pending || table_[id] != kNoSlot)) {
      return fmt::format("slot {} awaits layer {} expert {}, which awaits no slot", slot, s.layer,
                         s.expert);
    }
  }
  for (const int32_t slot : free_) {
    if (slots_[static_cast<size_t>(slot)].state != SlotState::kFree) {
      return fmt::format("slot {} is listed as free", slot);
    }
  }
  for (const int32_t slot : draining_) {
    if (slots_[static_cast<size_t>(slot)].state != SlotState::kDraining) {
      return fmt::format("slot {} is listed as draining", slot);
    }
  }
  if (num_free != free_.size() || num_draining != draining_.size() ||
      in_flight != static_cast<size_t>(num_in_flight_)) {
    return fmt::format("{} free slots of {}, {} draining of {}, {} in flight of {}", num_free,
                       free_.size(), num_draining, draining_.size(), in_flight, num_in_flight_);
  }
  return {};
}

// The visible table names resident slots, each of its own expert.
std::string SlotCache::expert_problem() const {
  for (int32_t layer = 0; layer < options_.num_layers; ++layer) {
    for (int32_t expert = 0; expert < options_.num_experts; ++expert) {
      const size_t id = id_of(layer, expert);
      const int32_t slot = table_[id];
      if ((slot != kNoSlot) != residents_.contains(layer, expert)) {
        return fmt::format("layer {} expert {}: slot {} and the heap disagree", layer, expert,
                           slot);
      }
      if (slot == kNoSlot) continue;
      if (slot < 0 || slot >= options_.num_slots) return fmt::format("there is no slot {}", slot);
      const Slot& s = slots_[static_cast<size_t>(slot)];
      if (s.state != SlotState::kResident || s.layer != layer || s.expert != expert) {
        return fmt::format("layer {} expert {} is not what slot {} holds", layer, expert, slot);
      }
    }
  }
  return {};
}

std::string SlotCache::count_problem() const {
  for (int32_t layer = 0; layer < options_.num_layers; ++layer) {
    int32_t pending = 0, listed = 0;
    for (int32_t expert = 0; expert < options_.num_experts; ++expert) {
      pending += experts_[id_of(layer, expert)].pending ? 1 : 0;
      listed += experts_[id_of(layer, expert)].listed ? 1 : 0;
    }
    const int32_t count = num_candidates_[static_cast<size_t>(layer)];
    for (int32_t i = 0; i < count; ++i) {
      const int32_t expert =
          candidates_[static_cast<size_t>(layer) * kMaxCandidates + static_cast<size_t>(i)];
      listed -= experts_[id_of(layer, expert)].listed ? 1 : 0;
    }
    if (pending != num_coming_[static_cast<size_t>(layer)] || listed != 0) {
      return fmt::format("layer {}: {} experts are awaited by {} slots, {} candidates too many",
                         layer, pending, num_coming_[static_cast<size_t>(layer)], listed);
    }
  }
  for (const int32_t place : batch_place_) {
    if (place >= 0) return "an expert is left over from a use";
  }
  size_t changed = 0;
  for (const Expert& expert : experts_) changed += expert.changed ? 1 : 0;
  if (changed != changed_ids_.size()) {
    return fmt::format("{} changes are marked, {} listed", changed, changed_ids_.size());
  }
  return {};
}

}  // namespace hotset
