// SPDX-License-Identifier: Apache-2.0
// One pass of moe_experts over up to kMaxTokens tokens: what moe_plan.cc works out before the
// threads start, and what each of them does (moe.cc).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/matmul_inputs.h"
#include "kernels/moe.h"

namespace hotset::cpu {

struct Projection {
  const PackedMatrix* weight = nullptr;
  InputKey key;
  Activations input;
  bool input_per_slot = false;
  const TileFormat* format = nullptr;  // matrices of one shape share it

  [[nodiscard]] const std::byte* tile(int64_t t) const {
    return weight->data + t * format->tile_bytes;
  }
};

// An expert that some token of the pass chose. Its choices are slots [slot_begin, slot_begin +
// num_slots), in token order.
struct ActiveExpert {
  int64_t slot_begin = 0;
  int64_t num_slots = 0;
  int64_t unit_cost = 0;  // of a unit of gate and up; see tile_cost
  int64_t num_units = 0;
  int64_t down_tile_cost = 0;
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
  void plan_costs();
  [[nodiscard]] int64_t gate_up_cost_before(int worker) const;
  void plan_shares();
  [[nodiscard]] bool quantizes_early(const Projection& down) const;

  // By each of them.
  void work(int worker);
  void prefetch_gate(int worker) const;
  void prepare_inputs(int worker);
  void prepare_token_inputs(Range tokens, int64_t row_offset);
  void prepare_slot_inputs(Range slots);
  void gate_up_share(int worker);
  void gate_up_tiles(const ActiveExpert& expert, Range tiles, int worker, const std::byte* next);
  void quantize_act(const ActiveExpert& expert, Range tiles, Range slots);
  void prepare_down_inputs(Range slots);
  void sum_down_groups(int worker);
  void down_share(int worker);
  void down_tiles(const ActiveExpert& expert, Range piece, int worker, const std::byte* next);
  void sum_experts(Range rows, const float* partial, int64_t ld_partial);
  template <typename Fn>
  void for_slots(Range slots, Fn fn);
  [[nodiscard]] float* partial_of(int worker) const {
    return partial_ + worker * partial_tiles_ * kTileRows * num_slots_;
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
  int64_t input_copies_ = 1;   // of the shared inputs: one, or one a worker
  bool any_per_slot_ = false;  // some gate or up reads rows made for its expert alone
  bool any_down_prepared_ = false;
  bool reads_ahead_ = false;     // bound by memory: who waits prefetches
  bool quantize_early_ = false;  // who computes a sub-block of down's input also rounds it
  int64_t max_width_ = 0;
  int64_t unit_ = 1;               // tiles of gate and up that stay together
  int64_t gate_up_cost_ = 0;       // of all experts
  int64_t down_tile_cost_ = 0;     // of a tile of each
  int64_t max_groups_ = 0;         // of a down's columns
  int64_t* down_begin_ = nullptr;  // [num_workers + 1] first tile of each worker
  float* act_ = nullptr;           // [num_slots, max_width]
  float* group_sums_ = nullptr;    // [num_workers, num_slots, max_groups] with quantize_early_
  float* partial_ = nullptr;       // [num_workers, partial_rows, num_slots] in pieces
  int64_t partial_tiles_ = 0;      // tiles of hidden a thread finishes at once
};

}  // namespace hotset::cpu
