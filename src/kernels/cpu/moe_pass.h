// SPDX-License-Identifier: Apache-2.0
// One pass of moe_experts over up to kMaxTokens tokens: what moe_plan.cc works out before the
// threads start, and what each of them does (moe.cc).
//
// Work is a list of units (a tile of gate and up; some tiles of down). The first part of the list
// is dealt out in runs, as memory likes it; the rest is taken unit by unit, since cores differ by a
// third in what memory gives them. Who computes what changes no result.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "kernels/cpu/matmul_inputs.h"
#include "kernels/moe.h"

namespace hotset::cpu {

// Views and formats are copied together: what a thread needs to know of an expert lies in a row.
struct Projection {
  PackedMatrix weight;
  InputKey key;
  Activations input;
  bool input_per_slot = false;
  const TileFormat* format = nullptr;  // matrices of one shape share it

  [[nodiscard]] const std::byte* tile(int64_t t) const {
    return weight.data + t * format->tile_bytes;
  }
};

// An expert that some token of the pass chose. Its choices are slots [slot_begin, slot_begin +
// num_slots), in token order.
struct ActiveExpert {
  int64_t slot_begin = 0;
  int64_t num_slots = 0;
  int64_t num_tiles = 0;   // of gate, as of up
  int64_t first_unit = 0;  // of gate and up, in the list of all experts; a unit a tile
  int64_t unit_cost = 0;   // see tile_cost
  Projection gate, up, down;
};

// Inputs of all tokens in the model's order, shared by every expert that wants them so.
struct SharedInput {
  InputKey key;
  Activations values;
};

class MoePass {
 public:
  static constexpr int64_t kMaxTokens = 1024;  // more would gain little reuse

  // each_output: y is [num_tokens, top_k, hidden], what moe_outputs asks for.
  MoePass(Queue& queue, std::span<const ExpertView> experts, const MoeBatch& batch, float* y,
          bool each_output);
  void run();

  [[nodiscard]] static size_t scratch_bytes(int64_t num_tokens, int64_t hidden, int64_t max_width,
                                            int32_t top_k, int64_t num_experts, int num_threads);

 private:
  // Before the threads start.
  void plan();
  void prefetch_views() const;
  void sort_by_expert();
  void plan_projection(Projection& p, const PackedMatrix& weight, int64_t rows, int64_t cols,
                       const Projection* previous);
  void plan_token_input(Projection& p, const ActiveExpert& expert);
  void plan_expert(int64_t i);
  void plan_gate_up();
  void plan_down();
  [[nodiscard]] bool quantizes_early(const Projection& down) const;

  // By each of them.
  struct Chunk {
    const ActiveExpert* expert = nullptr;  // null: nothing is left
    Range tiles;
  };
  class GateUpWalk;
  class DownWalk;
  void work(int worker);
  void prefetch_plan() const;
  void prepare_inputs(int worker);
  void prepare_token_inputs(int worker);
  void prepare_slot_inputs(Range slots);
  template <typename NextFn>
  void gate_up_tiles(const Chunk& chunk, const NextFn& next);
  void quantize_act(const ActiveExpert& expert, Range tiles, Range slots);
  void quantize_pairs(const ActiveExpert& expert, Range tiles);
  void prepare_down_inputs(Range slots);
  void sum_down_groups(int worker);
  void down_share(DownWalk& walk, int worker);
  void down_tiles(const Chunk& chunk, int worker, const std::byte* next);
  void sum_experts(Range rows, const float* partial, int64_t ld_partial);
  template <typename Fn>
  void for_slots(Range slots, Fn fn);
  [[nodiscard]] float* partial_of(int worker) const {
    return partial_ + worker * down_tiles_ * kTileRows * partial_slots_;
  }

  Queue& queue_;
  const MatmulKernels& kernels_;
  std::span<const ExpertView> experts_;
  const MoeBatch& batch_;
  float* y_;
  bool each_output_;
  int num_workers_;

  int64_t num_slots_ = 0;
  int32_t* slot_of_ = nullptr;    // [num_tokens, top_k], -1: no expert
  int32_t* pair_of_ = nullptr;    // [num_slots] index into expert_ids
  int32_t* token_of_ = nullptr;   // [num_slots]
  int32_t* expert_of_ = nullptr;  // [num_active] id
  ActiveExpert* active_ = nullptr;
  int64_t num_active_ = 0;
  TileFormat* formats_ = nullptr;
  int64_t num_formats_ = 0;
  SharedInput* shared_ = nullptr;  // [num_shared]
  int64_t num_shared_ = 0;
  bool any_per_slot_ = false;  // some gate or up reads rows made for its expert alone
  bool any_down_prepared_ = false;
  bool reads_ahead_ = false;     // bound by memory: who waits prefetches
  bool quantize_early_ = false;  // who computes a sub-block of down's input also rounds it
  int64_t max_width_ = 0;
  int64_t max_groups_ = 0;         // of a down's columns
  float* act_ = nullptr;           // [num_slots, max_width]
  float* group_sums_ = nullptr;    // [num_workers, num_slots, max_groups] with quantize_early_
  uint8_t* pair_tiles_ = nullptr;  // [units / 2] tiles done of each pair, with quantize_early_

  int64_t num_units_ = 0;    // of gate and up
  int64_t dealt_cost_ = 0;   // of those dealt out
  int64_t down_tiles_ = 1;   // of a unit of down: those of one expert, or of all in order
  int64_t units_a_row_ = 0;  // of down, until all tiles of an expert are done
  int64_t num_down_units_ = 0;
  int64_t dealt_down_units_ = 0;
  int64_t partial_slots_ = 0;
  float* partial_ = nullptr;  // [num_workers, partial_slots, down_tiles · 16]
  alignas(64) std::atomic<int64_t> next_unit_{0};
  alignas(64) std::atomic<int64_t> next_down_unit_{0};
};

}  // namespace hotset::cpu
