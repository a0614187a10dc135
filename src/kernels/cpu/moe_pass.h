// SPDX-License-Identifier: Apache-2.0
// One pass of moe_experts over up to kMaxTokens tokens: what moe_plan.cc works out before the
// threads start, and what each of them does (moe.cc).
//
// All tiles are dealt out. Beside a GPU, with few tokens, the same tiles of an expert go to the
// same thread whatever else was chosen (read_ahead.h); else a thread is dealt one run of the list
// of all experts' tiles. Cores differ by a third in what memory gives them, so a thread that has
// done its deal goes on with what others have not begun. Who computes what changes no result.
#pragma once

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

// An expert's tiles of down, or of gate and up together.
struct TileDeal {
  int64_t num_tiles = 0;
  int64_t cost = 0;         // of a tile, see tile_cost
  int64_t cost_before = 0;  // of the experts before
  int64_t max_chunk = 1;    // tiles computed at once
};

// An expert that some token of the pass chose. Its choices are slots [slot_begin, slot_begin +
// num_slots), in token order.
struct ActiveExpert {
  int32_t id = 0;
  int64_t slot_begin = 0;
  int64_t num_slots = 0;
  int64_t first_tile = 0;  // of gate, in the list of all experts'
  TileDeal gate_up_deal, down_deal;
  Projection gate, up, down;
};

// The tiles of the first `num_experts` active experts.
struct DealList {
  // Of a thread's deal, by whomever; through std::atomic_ref.
  struct alignas(64) Begun {
    int64_t chunks = 0;
    int64_t all = 0;  // 1: who looks for a further chunk need not walk the deal
  };
  TileDeal ActiveExpert::*deal = nullptr;
  int64_t num_experts = 0;
  int64_t cost = 0;
  Begun* begun = nullptr;  // [num_workers]
};

// Inputs of all tokens in the model's order, shared by every expert that wants them so.
struct SharedInput {
  InputKey key;
  Activations values;
};

class MoePass {
 public:
  static constexpr int64_t kMaxTokens = 1024;  // more would gain little reuse
  static constexpr int64_t kActRows = 64;      // tiles of one gate·up piece with one token

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
  void plan_deal(DealList& list, int64_t num_experts);
  [[nodiscard]] bool quantizes_early(const Projection& down) const;

  // By each of them.
  struct Chunk {
    const ActiveExpert* expert = nullptr;  // null: nothing is left
    Range tiles;
  };
  class Deal;
  class Walk;
  class DownRuns;
  [[nodiscard]] Range dealt(const DealList& list, int64_t i, int worker) const;
  void work(int worker);
  void prefetch_plan() const;
  void prepare_inputs(int worker);
  void quantize_tokens(const InputKey& key, const Activations& to, Range groups);
  void prepare_token_inputs(int worker);
  void prepare_slot_inputs(Range slots);
  void gate_up_share(int worker, const std::byte* down_first);
  void gate_up_tiles(const Chunk& chunk, int worker, const std::byte* next);
  void quantize_act(const ActiveExpert& expert, Range tiles, Range slots);
  void quantize_pairs(const ActiveExpert& expert, Range tiles);
  void prepare_down_inputs(Range slots);
  void sum_down_groups(int worker);
  void down_share(int worker);
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
  int32_t* slot_of_ = nullptr;   // [num_tokens, top_k], -1: no expert
  int32_t* pair_of_ = nullptr;   // [num_slots] index into expert_ids
  int32_t* token_of_ = nullptr;  // [num_slots]
  ActiveExpert* active_ = nullptr;
  int64_t num_active_ = 0;
  TileFormat* formats_ = nullptr;
  int64_t num_formats_ = 0;
  SharedInput* shared_ = nullptr;  // [num_shared]
  int64_t num_shared_ = 0;
  int64_t input_copies_ = 1;   // of shared inputs: one a thread, or one for all
  bool any_per_slot_ = false;  // some gate or up reads rows made for its expert alone
  bool any_down_prepared_ = false;
  bool reads_ahead_ = false;     // bound by memory: who waits prefetches
  bool by_owner_ = false;        // dealt as read_ahead.h says
  bool quantize_early_ = false;  // who computes a sub-block of down's input also rounds it
  int64_t max_width_ = 0;
  int64_t max_groups_ = 0;         // of a down's columns
  float* act_ = nullptr;           // [num_slots, max_width]
  float* group_sums_ = nullptr;    // [num_workers, num_slots, max_groups] with quantize_early_
  uint8_t* pair_tiles_ = nullptr;  // [tiles / 2] done of each pair, with quantize_early_

  int64_t num_gate_tiles_ = 0;  // of all experts
  int64_t down_tiles_ = 1;      // at once: those of one expert, or of all in order
  int64_t partial_slots_ = 0;
  float* partial_ = nullptr;  // [num_workers, partial_slots, down_tiles · 16]
  DealList gate_up_list_{.deal = &ActiveExpert::gate_up_deal};
  DealList down_list_{.deal = &ActiveExpert::down_deal};  // summed outputs: one row for all experts
};

}  // namespace hotset::cpu
