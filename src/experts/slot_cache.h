// SPDX-License-Identifier: Apache-2.0
// The book-keeping of the live expert cache: which experts lie in which GPU slot, and which one
// should come next. Policy only: nothing is copied here, no clock is read, no GPU is needed.
//
// A pool of slots, one expert record each, serves all layers. In a step, each layer calls use()
// with the experts its router chose; the answer tells hits (with their slots) from misses. Between
// steps, plan_insertions() says which copies to start and commit_insertion() makes a finished one
// visible.
//
//   free ──plan──▶ inserting ──commit──▶ resident ──plan──▶ draining ──drain_steps──▶ inserting
//                  copy in flight,       visible to          invisible; steps that
//                  not visible           use()               began earlier may read it
//
// Admission is by evidence. A missed expert becomes a candidate at its second touch within
// `window_steps` (a slot that is free takes it at the first). It replaces the least valuable
// resident (ExpertScore: recency and frequency) only if that one is worth less, was not used later,
// has been out of use for `drain_steps`, and the exchange is expected to save `insertion_price`
// misses within `payback_steps` (InsertionValue, learned from the traffic). Layers take turns, one
// insertion a round, the first place moving on with each step; no layer falls below
// `min_slots_per_layer` for another's sake.
//
// Steps launched after a change of the visible table must see it: send take_changes() to the device
// between steps. One thread uses a cache. No call allocates after create().
// Cost: use() O(log E) an expert, plan_insertions() O(layers + candidates · layers).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "experts/expert_score.h"
#include "experts/insertion_value.h"
#include "experts/value_heap.h"

namespace hotset {

class RoutingProfile;

inline constexpr int32_t kNoSlot = -1;

struct SlotCacheOptions {
  int32_t num_layers = 0;
  int32_t num_experts = 0;  // of a layer
  int32_t num_slots = 0;
  int64_t slot_bytes = 0;  // one expert record

  int32_t window_steps = 16;         // a second touch counts within this many steps of the first
  int32_t half_life_steps = 16;      // of an expert's score
  int32_t payback_steps = 64;        // an insertion must have paid for itself by then …
  double insertion_price = 1.5;      // … this many misses
  int32_t max_per_layer_step = 2;    // insertions begun
  int64_t step_budget_bytes = 0;     // insertions begun in a step, all layers; 0: no bound
  int32_t max_in_flight = 256;       // slots draining or inserting at a time
  int32_t drain_steps = 1;           // launched steps that may still read an older table
  int32_t min_slots_per_layer = -1;  // -1: half of an even share
};

// As an engine runs it, with copies on a stream beside the steps and tables that change between
// them; what copies may take of a step's time on PCIe is bounded.
[[nodiscard]] SlotCacheOptions live_cache_options(int32_t num_layers, int32_t num_experts,
                                                  int32_t num_slots, int64_t slot_bytes);

struct ExpertUse {
  int32_t expert = 0;
  int32_t tokens = 0;      // how often it was among the ids
  int32_t slot = kNoSlot;  // kNoSlot: a miss
};

// What a layer's use() answers; distinct experts. Valid until the next use().
struct LayerUses {
  std::span<const ExpertUse> hits;
  std::span<const ExpertUse> misses;
};

struct Insertion {
  int32_t slot = kNoSlot;
  int32_t layer = 0;
  int32_t expert = 0;
};

// A change of the visible table; slot kNoSlot: the expert is no longer on the GPU.
struct TableChange {
  int32_t layer = 0;
  int32_t expert = 0;
  int32_t slot = kNoSlot;
};

struct SlotCacheCounts {
  int64_t hits = 0;  // distinct experts of a layer and step
  int64_t misses = 0;
  int64_t hit_tokens = 0;  // the same, weighted by tokens
  int64_t miss_tokens = 0;
  int64_t begun = 0;  // insertions whose copy was asked for
  int64_t committed = 0;
  int64_t aborted = 0;
  int64_t evicted = 0;
  int64_t evicted_unused = 0;  // of them without a single hit
  int64_t too_weak = 0;        // candidates refused: not better than any resident that may go
  int64_t not_paying = 0;      // candidates refused: the gain does not pay for the bytes
};

class SlotCache {
 public:
  [[nodiscard]] static Result<SlotCache> create(const SlotCacheOptions& options);
  SlotCache(SlotCache&&) noexcept = default;
  SlotCache& operator=(SlotCache&&) noexcept = default;
  SlotCache(const SlotCache&) = delete;
  SlotCache& operator=(const SlotCache&) = delete;
  ~SlotCache() = default;

  // The experts chosen by one layer in one step, ids with repeats ([num_tokens, top_k] for a
  // batch). Each id < num_experts; steps do not go back.
  LayerUses use(int32_t layer, int64_t step, std::span<const uint16_t> ids);

  // Copies to start now, after the uses of `step` are known. Valid until the next plan.
  std::span<const Insertion> plan_insertions(int64_t step);
  // Fills free slots with the most valuable experts that are not resident, at once: at start and
  // when lent slots come back. Not bounded by the step's budget. Valid until the next plan.
  std::span<const Insertion> plan_fill(int64_t step);
  // The copy into this slot is complete: the next step may use it.
  void commit_insertion(int32_t slot);
  // The copy failed: the slot is free again.
  void abort_insertion(int32_t slot);

  // Takes scores from a profile, before anything else is known. Follow with plan_fill().
  Status seed(const RoutingProfile& profile);

  // Lends slots.size() slots for another use (a prefill's double buffer): free ones first, then the
  // least valuable. No launched step may be reading. False, with nothing lent, if that many are not
  // free or resident.
  bool lend(std::span<int32_t> slots);
  void give_back(std::span<const int32_t> slots);

  // kNoSlot while not visible.
  [[nodiscard]] int32_t slot_of(int32_t layer, int32_t expert) const {
    return table_[id_of(layer, expert)];
  }
  // The visible table, [num_layers, num_experts], and what changed in it since the last call.
  [[nodiscard]] std::span<const int32_t> table() const { return table_; }
  std::span<const TableChange> take_changes();

  [[nodiscard]] const SlotCacheOptions& options() const { return options_; }
  [[nodiscard]] const SlotCacheCounts& counts() const { return counts_; }
  [[nodiscard]] int32_t num_resident(int32_t layer) const { return residents_.size(layer); }
  [[nodiscard]] int32_t num_free() const { return static_cast<int32_t>(free_.size()); }
  [[nodiscard]] int32_t num_in_flight() const { return num_in_flight_; }
  [[nodiscard]] double log_score(int32_t layer, int32_t expert, int64_t step) const {
    return score_.log_score(keys_[id_of(layer, expert)], step);
  }
  [[nodiscard]] const InsertionValue& insertion_value() const { return value_; }

  // Every invariant between the tables; for tests and the idle loop. The error says what is wrong.
  [[nodiscard]] Status check_integrity() const;

 private:
  enum class SlotState : uint8_t { kFree, kInserting, kResident, kDraining, kLent };
  struct Slot {
    SlotState state = SlotState::kFree;
    int32_t layer = 0;  // inserting, resident: who lies there; draining: who comes
    int32_t expert = 0;
    bool hit = false;          // kResident: since it became so
    int64_t drained_step = 0;  // kDraining: the last step that may have been launched with it
  };
  struct Expert {
    int64_t last_step = -1;  // of its last use
    bool pending = false;    // a slot drains or fills for it
    bool listed = false;     // among its layer's candidates
    bool changed = false;    // in changed_ids_
    bool second_touch = false;
  };
  static constexpr int32_t kMaxCandidates = 32;  // a layer

  explicit SlotCache(const SlotCacheOptions& options);
  [[nodiscard]] size_t id_of(int32_t layer, int32_t expert) const {
    return static_cast<size_t>(layer) * static_cast<size_t>(options_.num_experts) +
           static_cast<size_t>(expert);
  }
  void gather_uses(int32_t layer, std::span<const uint16_t> ids);
  void record_use(int32_t layer, int64_t step, const ExpertUse& use);
  void list_candidate(int32_t layer, int32_t expert);
  void unlist(int32_t layer, size_t at);
  void set_visible(int32_t layer, int32_t expert, int32_t slot);
  [[nodiscard]] bool in_use(int32_t layer, int32_t expert, int64_t step) const;

  [[nodiscard]] int32_t take_best_candidate(int32_t layer, int64_t step);
  [[nodiscard]] int32_t victim_layer(int32_t for_layer, int64_t step) const;
  [[nodiscard]] bool may_copy(int32_t layer) const;
  bool plan_one(int32_t layer, int64_t step);
  bool replace_victim(int32_t layer, int32_t expert, int64_t step);
  void begin_copy(int32_t slot, int32_t layer, int32_t expert);
  void reserve_for(int32_t slot, int32_t layer, int32_t expert);
  int32_t evict(int32_t layer, int32_t expert);
  void finish_drains(int64_t step);

  [[nodiscard]] std::string slot_problem() const;
  [[nodiscard]] std::string expert_problem() const;
  [[nodiscard]] std::string count_problem() const;

  SlotCacheOptions options_;
  ExpertScore score_;
  InsertionValue value_;
  std::vector<double> keys_;     // [num_layers, num_experts]
  std::vector<Expert> experts_;  // [num_layers, num_experts]
  std::vector<int32_t> table_;   // [num_layers, num_experts]: visible slot or kNoSlot
  std::vector<Slot> slots_;      // [num_slots]
  ValueHeap residents_;
  std::vector<int32_t> free_;            // a stack of slots
  std::vector<int32_t> draining_;        // slots, oldest first
  std::vector<int32_t> candidates_;      // [num_layers, kMaxCandidates]
  std::vector<int32_t> num_candidates_;  // [num_layers]
  std::vector<int32_t> num_coming_;      // [num_layers]: slots draining or inserting for the layer
  std::vector<int32_t> num_copies_;      // [num_layers]: in this plan
  std::vector<size_t> changed_ids_;
  std::vector<TableChange> changes_;
  std::vector<int32_t> batch_place_;   // [num_experts]: index in uses_ while it is gathered, or -1
  std::vector<ExpertUse> uses_;        // of the last use()
  std::vector<Insertion> insertions_;  // of the last plan
  std::vector<int32_t> order_;         // scratch of plan_fill()
  int32_t min_slots_ = 0;
  int32_t num_in_flight_ = 0;  // draining or inserting
  int32_t first_layer_ = 0;    // whose turn it is in plan_insertions()
  int64_t copies_left_ = 0;    // of this plan's budget
  int64_t last_step_ = 0;
  int64_t last_plan_step_ = -1;
  SlotCacheCounts counts_;
};

}  // namespace hotset
