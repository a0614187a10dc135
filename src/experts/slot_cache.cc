// SPDX-License-Identifier: Apache-2.0
#include "experts/slot_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "experts/routing_profile.h"

namespace hotset {
namespace {

constexpr int32_t kMaxLayers = 4096;
constexpr int32_t kMaxPayback = 65535;  // trials count in 16 bits
constexpr int64_t kStepCopyBytes = int64_t{64} << 20;
constexpr int32_t kMaxExperts = 65535;  // ids are uint16, and one value is left

Status check_options(const SlotCacheOptions& o) {
  if (o.num_layers < 1 || o.num_layers > kMaxLayers || o.num_experts < 1 ||
      o.num_experts > kMaxExperts) {
    return fail(fmt::format("expert cache: {} layers of {} experts", o.num_layers, o.num_experts));
  }
  const int64_t all = int64_t{o.num_layers} * o.num_experts;
  if (o.num_slots < 0 || o.num_slots > all) {
    return fail(fmt::format("expert cache: {} slots for {} experts", o.num_slots, all));
  }
  if (int64_t{std::max(o.min_slots_per_layer, 0)} * o.num_layers > o.num_slots) {
    return fail(fmt::format("expert cache: {} slots can't give each of {} layers {}", o.num_slots,
                            o.num_layers, o.min_slots_per_layer));
  }
  if (o.slot_bytes < 1 || o.window_steps < 1 || o.half_life_steps < 1 || o.payback_steps < 1 ||
      o.payback_steps > kMaxPayback || o.max_per_layer_step < 1 || o.step_budget_bytes < 0 ||
      o.max_in_flight < 1 || o.drain_steps < 0 || !(o.insertion_price >= 0)) {
    return fail("expert cache: an option is out of range");
  }
  return {};
}

}  // namespace

SlotCacheOptions live_cache_options(int32_t num_layers, int32_t num_experts, int32_t num_slots,
                                    int64_t slot_bytes) {
  return {.num_layers = num_layers,
          .num_experts = num_experts,
          .num_slots = num_slots,
          .slot_bytes = slot_bytes,
          .step_budget_bytes = kStepCopyBytes,
          .drain_steps = 0};
}

Result<SlotCache> SlotCache::create(const SlotCacheOptions& options) {
  HS_RETURN_IF_ERROR(check_options(options));
  return SlotCache(options);
}

SlotCache::SlotCache(const SlotCacheOptions& options)
    : options_(options),
      score_(options.half_life_steps),
      value_(int64_t{options.num_layers} * options.num_experts, options.payback_steps),
      keys_(id_of(options.num_layers, 0), kNeverUsedKey),
      experts_(keys_.size()),
      table_(keys_.size(), kNoSlot),
      slots_(static_cast<size_t>(options.num_slots)),
      residents_(options.num_layers, options.num_experts, keys_.data()) {
  const auto layers = static_cast<size_t>(options.num_layers);
  free_.reserve(slots_.size());
  for (int32_t slot = options.num_slots; slot > 0; --slot) free_.push_back(slot - 1);
  draining_.reserve(static_cast<size_t>(std::min(options.max_in_flight, options.num_slots)));
  candidates_.assign(layers * kMaxCandidates, -1);
  num_candidates_.assign(layers, 0);
  num_coming_.assign(layers, 0);
  num_copies_.assign(layers, 0);
  changed_ids_.reserve(keys_.size());
  changes_.reserve(keys_.size());
  batch_place_.assign(static_cast<size_t>(options.num_experts), -1);
  uses_.reserve(static_cast<size_t>(options.num_experts));
  insertions_.reserve(slots_.size());
  order_.reserve(keys_.size());
  min_slots_ = options.min_slots_per_layer >= 0 ? options.min_slots_per_layer
                                                : options.num_slots / options.num_layers / 2;
}

// ── A step's uses ───────────────────────────────────────────────────────────────────────────────

LayerUses SlotCache::use(int32_t layer, int64_t step, std::span<const uint16_t> ids) {
  HS_CHECK(layer >= 0 && layer < options_.num_layers, "layer {}", layer);
  HS_CHECK(step >= last_step_, "step {} after step {}", step, last_step_);
  last_step_ = step;
  value_.advance(step);
  gather_uses(layer, ids);
  for (const ExpertUse& use : uses_) record_use(layer, step, use);
  if (free_.empty() && !residents_.empty(layer)) {  // while slots are free, nobody has to go
    const size_t next = id_of(layer, residents_.top(layer));
    value_.observe(InsertionValue::Role::kVictim, static_cast<int64_t>(next),
                   score_.log_score(keys_[next], step), step);
  }
  const auto hits_end =
      std::partition(uses_.begin(), uses_.end(), [](const ExpertUse& u) { return u.slot >= 0; });
  const auto num_hits = static_cast<size_t>(hits_end - uses_.begin());
  const std::span<const ExpertUse> all(uses_);
  counts_.hits += static_cast<int64_t>(num_hits);
  counts_.misses += static_cast<int64_t>(all.size() - num_hits);
  return {all.first(num_hits), all.subspan(num_hits)};
}

// Distinct experts with their tokens, in the order of first appearance.
void SlotCache::gather_uses(int32_t layer, std::span<const uint16_t> ids) {
  uses_.clear();
  for (const uint16_t id : ids) {
    HS_CHECK(id < options_.num_experts, "layer {} chose expert {} of {}", layer, id,
             options_.num_experts);
    int32_t& place = batch_place_[id];
    if (place < 0) {
      place = static_cast<int32_t>(uses_.size());
      uses_.push_back({.expert = id, .tokens = 0, .slot = slot_of(layer, id)});
    }
    ++uses_[static_cast<size_t>(place)].tokens;
  }
  for (const ExpertUse& use : uses_) batch_place_[static_cast<size_t>(use.expert)] = -1;
}

void SlotCache::record_use(int32_t layer, int64_t step, const ExpertUse& use) {
  const size_t id = id_of(layer, use.expert);
  Expert& expert = experts_[id];
  expert.second_touch =
      use.tokens > 1 || (expert.last_step >= 0 && step - expert.last_step <= options_.window_steps);
  if (expert.last_step != step) value_.used(static_cast<int64_t>(id));
  expert.last_step = step;
  keys_[id] = score_.after_use(keys_[id], step, use.tokens);
  if (use.slot != kNoSlot) {
    residents_.key_rose(layer, use.expert);
    slots_[static_cast<size_t>(use.slot)].hit = true;
    counts_.hit_tokens += use.tokens;
    return;
  }
  counts_.miss_tokens += use.tokens;
  if (expert.second_touch) {
    value_.observe(InsertionValue::Role::kCandidate, static_cast<int64_t>(id),
                   score_.log_score(keys_[id], step), step);
  }
  if (!expert.pending && (expert.second_touch || !free_.empty())) {
    list_candidate(layer, use.expert);
  }
}

// A full list gives up its least valuable candidate.
void SlotCache::list_candidate(int32_t layer, int32_t expert) {
  if (experts_[id_of(layer, expert)].listed) return;
  int32_t& count = num_candidates_[static_cast<size_t>(layer)];
  int32_t* const list = candidates_.data() + size_t(layer) * kMaxCandidates;
  if (count == kMaxCandidates) {
    const auto key = [&](int32_t e) { return keys_[id_of(layer, e)]; };
    const int32_t* const least =
        std::min_element(list, list + count, [&](int32_t a, int32_t b) { return key(a) < key(b); });
    if (key(*least) >= key(expert)) return;
    unlist(layer, static_cast<size_t>(least - list));
  }
  list[count++] = expert;
  experts_[id_of(layer, expert)].listed = true;
}

void SlotCache::unlist(int32_t layer, size_t at) {
  int32_t* const list = candidates_.data() + size_t(layer) * kMaxCandidates;
  experts_[id_of(layer, list[at])].listed = false;
  list[at] = list[--num_candidates_[static_cast<size_t>(layer)]];
}

// ── Planning ────────────────────────────────────────────────────────────────────────────────────

std::span<const Insertion> SlotCache::plan_insertions(int64_t step) {
  HS_CHECK(step > last_plan_step_ && step >= last_step_, "a plan for step {} after one for {}",
           step, last_plan_step_);
  last_plan_step_ = step;
  insertions_.clear();
  std::fill(num_copies_.begin(), num_copies_.end(), 0);
  const int64_t budget = options_.step_budget_bytes > 0
                             ? options_.step_budget_bytes / options_.slot_bytes
                             : std::numeric_limits<int32_t>::max();
  copies_left_ = budget;
  finish_drains(step);

  int64_t starts_left = budget;
  int32_t next_first = first_layer_ + 1;
  for (int32_t round = 0; round < options_.max_per_layer_step; ++round) {
    for (int32_t i = 0; i < options_.num_layers; ++i) {
      if (starts_left == 0 || num_in_flight_ >= options_.max_in_flight) break;
      const int32_t layer = (first_layer_ + i) % options_.num_layers;
      if (!plan_one(layer, step)) continue;
      // The budget ends in the middle of a round: the next step goes on from there.
      if (--starts_left == 0) next_first = layer + 1;
    }
  }
  first_layer_ = next_first % options_.num_layers;
  return insertions_;
}

bool SlotCache::may_copy(int32_t layer) const {
  return copies_left_ > 0 && num_copies_[static_cast<size_t>(layer)] < options_.max_per_layer_step;
}

// Begins at most one insertion for the layer: its best candidate that passes.
bool SlotCache::plan_one(int32_t layer, int64_t step) {
  for (;;) {
    // A free slot, or one without drain time, is filled by a copy of this very plan.
    if ((!free_.empty() || options_.drain_steps == 0) && !may_copy(layer)) return false;
    const int32_t expert = take_best_candidate(layer, step);
    if (expert < 0) return false;
    if (!free_.empty()) {
      const int32_t slot = free_.back();
      free_.pop_back();
      reserve_for(slot, layer, expert);
      begin_copy(slot, layer, expert);
      return true;
    }
    if (replace_victim(layer, expert, step)) return true;
  }
}

// The layer's most valuable candidate leaves the list; -1 when none is left.
int32_t SlotCache::take_best_candidate(int32_t layer, int64_t step) {
  const int32_t& count = num_candidates_[static_cast<size_t>(layer)];
  const int32_t* const list = candidates_.data() + size_t(layer) * kMaxCandidates;
  int32_t best = -1;
  for (int32_t i = 0; i < count;) {
    const size_t id = id_of(layer, list[i]);
    if (step - experts_[id].last_step > options_.window_steps || experts_[id].pending ||
        table_[id] != kNoSlot) {
      unlist(layer, static_cast<size_t>(i));  // too long ago, or here by another way
      continue;
    }
    if (best < 0 || keys_[id] > keys_[id_of(layer, list[best])]) best = i;
    ++i;
  }
  if (best < 0) return -1;
  const int32_t expert = list[best];
  unlist(layer, static_cast<size_t>(best));
  return expert;
}

bool SlotCache::in_use(int32_t layer, int32_t expert, int64_t step) const {
  const int64_t last = experts_[id_of(layer, expert)].last_step;
  return last >= 0 && step - last < options_.drain_steps;
}

// The layer whose least valuable resident is worth least of all that may go; -1: none may.
int32_t SlotCache::victim_layer(int32_t for_layer, int64_t step) const {
  int32_t best = -1;
  double best_key = std::numeric_limits<double>::infinity();
  for (int32_t layer = 0; layer < options_.num_layers; ++layer) {
    if (residents_.empty(layer)) continue;
    const int32_t held = residents_.size(layer) + num_coming_[static_cast<size_t>(layer)];
    if (layer != for_layer && held <= min_slots_) continue;
    const int32_t top = residents_.top(layer);
    const double key = keys_[id_of(layer, top)];
    if (key < best_key && !in_use(layer, top, step)) {
      best = layer;
      best_key = key;
    }
  }
  return best;
}

bool SlotCache::replace_victim(int32_t layer, int32_t expert, int64_t step) {
  const size_t id = id_of(layer, expert);
  if (!experts_[id].second_touch) return false;
  const int32_t from = victim_layer(layer, step);
  if (from < 0) {
    ++counts_.too_weak;
    return false;
  }
  const int32_t victim = residents_.top(from);
  const size_t victim_id = id_of(from, victim);
  if (keys_[victim_id] >= keys_[id] || experts_[victim_id].last_step > experts_[id].last_step) {
    ++counts_.too_weak;
    return false;
  }
  const double gain =
      value_.gain(score_.log_score(keys_[id], step), score_.log_score(keys_[victim_id], step));
  if (gain < options_.insertion_price) {
    ++counts_.not_paying;
    return false;
  }
  const int32_t slot = evict(from, victim);
  reserve_for(slot, layer, expert);
  if (options_.drain_steps == 0) {
    begin_copy(slot, layer, expert);
  } else {
    slots_[static_cast<size_t>(slot)].state = SlotState::kDraining;
    slots_[static_cast<size_t>(slot)].drained_step = step;
    draining_.push_back(slot);
  }
  return true;
}

// Slots that no launched step can read any more get their copy.
void SlotCache::finish_drains(int64_t step) {
  size_t kept = 0;
  for (const int32_t slot : draining_) {
    const Slot& s = slots_[static_cast<size_t>(slot)];
    if (s.drained_step + options_.drain_steps <= step && may_copy(s.layer)) {
      begin_copy(slot, s.layer, s.expert);
    } else {
      draining_[kept++] = slot;
    }
  }
  draining_.resize(kept);
}

void SlotCache::reserve_for(int32_t slot, int32_t layer, int32_t expert) {
  Slot& s = slots_[static_cast<size_t>(slot)];
  s.layer = layer;
  s.expert = expert;
  experts_[id_of(layer, expert)].pending = true;
  ++num_coming_[static_cast<size_t>(layer)];
  ++num_in_flight_;
}

void SlotCache::begin_copy(int32_t slot, int32_t layer, int32_t expert) {
  slots_[static_cast<size_t>(slot)].state = SlotState::kInserting;
  insertions_.push_back({.slot = slot, .layer = layer, .expert = expert});
  ++num_copies_[static_cast<size_t>(layer)];
  --copies_left_;
  ++counts_.begun;
}

int32_t SlotCache::evict(int32_t layer, int32_t expert) {
  const int32_t slot = slot_of(layer, expert);
  residents_.remove(layer, expert);
  set_visible(layer, expert, kNoSlot);
  ++counts_.evicted;
  counts_.evicted_unused += slots_[static_cast<size_t>(slot)].hit ? 0 : 1;
  return slot;
}

// ── What the mechanism reports, and asks ────────────────────────────────────────────────────────

void SlotCache::commit_insertion(int32_t slot) {
  HS_CHECK(slot >= 0 && slot < options_.num_slots, "slot {}", slot);
  Slot& s = slots_[static_cast<size_t>(slot)];
  HS_CHECK(s.state == SlotState::kInserting, "slot {} is not being filled", slot);
  s.state = SlotState::kResident;
  s.hit = false;
  experts_[id_of(s.layer, s.expert)].pending = false;
  --num_coming_[static_cast<size_t>(s.layer)];
  --num_in_flight_;
  set_visible(s.layer, s.expert, slot);
  residents_.insert(s.layer, s.expert);
  ++counts_.committed;
}

void SlotCache::abort_insertion(int32_t slot) {
  HS_CHECK(slot >= 0 && slot < options_.num_slots, "slot {}", slot);
  Slot& s = slots_[static_cast<size_t>(slot)];
  HS_CHECK(s.state == SlotState::kInserting, "slot {} is not being filled", slot);
  s.state = SlotState::kFree;
  experts_[id_of(s.layer, s.expert)].pending = false;
  --num_coming_[static_cast<size_t>(s.layer)];
  --num_in_flight_;
  free_.push_back(slot);
  ++counts_.aborted;
}

void SlotCache::set_visible(int32_t layer, int32_t expert, int32_t slot) {
  const size_t id = id_of(layer, expert);
  table_[id] = slot;
  if (experts_[id].changed) return;
  experts_[id].changed = true;
  changed_ids_.push_back(id);
}

std::span<const TableChange> SlotCache::take_changes() {
  changes_.clear();
  const auto num_experts = static_cast<size_t>(options_.num_experts);
  for (const size_t id : changed_ids_) {
    experts_[id].changed = false;
    changes_.push_back({.layer = static_cast<int32_t>(id / num_experts),
                        .expert = static_cast<int32_t>(id % num_experts),
                        .slot = table_[id]});
  }
  changed_ids_.clear();
  return changes_;
}

Status SlotCache::seed(const RoutingProfile& profile) {
  if (profile.num_layers() != options_.num_layers ||
      profile.num_experts() != options_.num_experts) {
    return fail(fmt::format(
        "the routing profile is of {} layers of {} experts, the model has {} of {}",
        profile.num_layers(), profile.num_experts(), options_.num_layers, options_.num_experts));
  }
  for (int32_t layer = 0; layer < options_.num_layers; ++layer) {
    HS_CHECK(residents_.empty(layer), "a profile comes before the first insertion");
    for (int32_t expert = 0; expert < options_.num_experts; ++expert) {
      keys_[id_of(layer, expert)] = score_.steady(profile.probability(layer, expert), last_step_);
    }
  }
  return {};
}

// First every layer its minimum, then by value alone; without scores, evenly over the layers.
std::span<const Insertion> SlotCache::plan_fill(int64_t step) {
  HS_CHECK(step >= last_step_, "step {} after step {}", step, last_step_);
  insertions_.clear();
  order_.clear();
  for (size_t id = 0; id < keys_.size(); ++id) {
    if (table_[id] == kNoSlot && !experts_[id].pending) order_.push_back(static_cast<int32_t>(id));
  }
  const int32_t num_experts = options_.num_experts;
  std::sort(order_.begin(), order_.end(), [&](int32_t a, int32_t b) {
    const double key_a = keys_[static_cast<size_t>(a)];
    const double key_b = keys_[static_cast<size_t>(b)];
    if (key_a != key_b) return key_a > key_b;
    if (a % num_experts != b % num_experts) return a % num_experts < b % num_experts;
    return a < b;
  });
  for (const bool minimum_only : {true, false}) {
    for (const int32_t id : order_) {
      if (free_.empty()) break;
      const int32_t layer = id / num_experts;
      const int32_t held = residents_.size(layer) + num_coming_[static_cast<size_t>(layer)];
      if (experts_[static_cast<size_t>(id)].pending || (minimum_only && held >= min_slots_)) {
        continue;
      }
      const int32_t slot = free_.back();
      free_.pop_back();
      reserve_for(slot, layer, id % num_experts);
      begin_copy(slot, layer, id % num_experts);
    }
  }
  return insertions_;
}

bool SlotCache::lend(std::span<int32_t> slots) {
  size_t available = free_.size();
  for (int32_t layer = 0; layer < options_.num_layers; ++layer) {
    available += static_cast<size_t>(residents_.size(layer));
  }
  if (slots.size() > available) return false;
  for (int32_t& slot : slots) {
    if (!free_.empty()) {
      slot = free_.back();
      free_.pop_back();
    } else {
      int32_t least = -1;
      for (int32_t layer = 0; layer < options_.num_layers; ++layer) {
        if (residents_.empty(layer)) continue;
        const auto key = [&](int32_t l) { return keys_[id_of(l, residents_.top(l))]; };
        if (least < 0 || key(layer) < key(least)) least = layer;
      }
      slot = evict(least, residents_.top(least));
    }
    slots_[static_cast<size_t>(slot)].state = SlotState::kLent;
  }
  return true;
}

void SlotCache::give_back(std::span<const int32_t> slots) {
  for (const int32_t slot : slots) {
    HS_CHECK(slot >= 0 && slot < options_.num_slots, "slot {}", slot);
    Slot& s = slots_[static_cast<size_t>(slot)];
    HS_CHECK(s.state == SlotState::kLent, "slot {} was not lent", slot);
    s.state = SlotState::kFree;
    free_.push_back(slot);
  }
}

}  // namespace hotset
