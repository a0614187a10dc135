// SPDX-License-Identifier: Apache-2.0
// The kernels behind moe_outputs and moe_join, each with what it is told.
#pragma once

#include "kernels/cuda/expert_exchange.h"
#include "kernels/cuda/matmul_launch.h"

namespace hotset::cuda {

// One ExpertGroup, with the rounded inputs of its three matrices where these are integer.
struct ExpertJob {
  TileLayout gate, up, down;
  RoundedInput gate_in, up_in;  // a row a token, or a row a slot where `per_slot`
  bool gate_per_slot = false;
  bool up_per_slot = false;
  bool rounds_act = false;  // the gate·up kernel rounds what down reads
  int32_t first_expert = 0;
  int32_t end_expert = 0;
  const int32_t* const* orders = nullptr;

  // Rows of gate·up that have to be written: all, and the zeros behind them that down reads.
  HS_BOTH int covered_rows() const {
    const int padded = rounds_act ? kSubBlock * down.num_subs() : 0;
    return padded > gate.rows ? padded : gate.rows;
  }
};

// An expert and some choices of it, whose tokens are multiplied together.
inline constexpr int32_t kItemTokens = 8;
struct alignas(16) ExpertItem {
  const std::byte* gate;
  const std::byte* up;
  const std::byte* down;
  int32_t job;
  int32_t count;
  int32_t pairs[kItemTokens];
};

struct ExpertArgs {
  ExpertJob jobs[kMaxExpertGroups];
  int32_t num_jobs = 0;
  const ExpertAddress* addresses = nullptr;
  const ExpertAddress* choice_addresses = nullptr;  // null: `addresses` of the choice's id
  const int32_t* ids = nullptr;                     // [num_tokens, top_k]
  int32_t top_k = 0;
  int32_t num_tokens = 0;
  int32_t hidden = 0;
  int32_t max_width = 0;
  const float* x = nullptr;  // [num_tokens, hidden]
  // All gates and ups read one rounded form, which the blocks make for themselves.
  bool rounds = false;
  RoundedCut cut;
  bool prefetches_down = false;  // what the next kernel reads fits the L2 cache
  ExpertItem* items = nullptr;   // [pairs], for item_products() with x_in
  int32_t* num_items = nullptr;
  RoundedInput x_in;      // a row a token
  float* act = nullptr;   // [pairs, max_width], where down is not integer or rounds itself
  RoundedInput act_in;    // a row a pair
  float* rows = nullptr;  // [num_tokens, top_k, hidden]; null: y is written
  const float* weights = nullptr;
  const float* elsewhere = nullptr;
  float* y = nullptr;

  HS_BOTH const ExpertAddress& address_of(int64_t pair, int expert) const {
    return choice_addresses != nullptr ? choice_addresses[pair] : addresses[expert];
  }
};

// A block a pair (token, choice) and 32 rows of its expert.
void gate_up_products(Queue& queue, const ExpertArgs& args);
// A block a token and 16 rows of the output, a warp a choice; sums them when `rows` is null.
void down_products(Queue& queue, const ExpertArgs& args);

// Both, for one token, for experts whose products are all integer, of whole sub-blocks, where
// can_stage() says so: choices that are not here cost nothing. Blocks round x for themselves.
inline constexpr int kMaxFewChoices = 512;
inline constexpr int kMaxStagedTopK = 32;
[[nodiscard]] bool can_stage(const Queue& queue, const ExpertArgs& args);
void staged_products(Queue& queue, const ExpertArgs& args);

// The same for several tokens: an expert is read once for up to kItemTokens of them. Into `rows`.
[[nodiscard]] bool can_take_items(const Queue& queue, const ExpertArgs& args);
void item_products(Queue& queue, const ExpertArgs& args);

// Choices in the order of their experts. A slot is a choice whose expert has an address.
struct SortedChoices {
  int32_t* token_of = nullptr;   // [pairs]
  int32_t* pair_of = nullptr;    // [pairs]
  int32_t* expert_of = nullptr;  // [pairs]; −1 past the last slot
  ExpertChunk* chunks = nullptr;
  int32_t* chunk_ranges = nullptr;  // [groups][2]
};
struct SortArgs {
  SortedChoices to;
  int32_t* counts = nullptr;  // [num_experts], for the sort itself
  const ExpertAddress* addresses = nullptr;
  const int32_t* ids = nullptr;
  int32_t num_pairs = 0;
  int32_t top_k = 0;
  int32_t num_experts = 0;
  int32_t num_groups = 0;
  int32_t first_expert[kMaxExpertGroups] = {};
  int32_t end_expert[kMaxExpertGroups] = {};
};
inline constexpr int32_t kMaxExperts = 8192;
void sort_choices(Queue& queue, const SortArgs& args);

// moe_join for some columns: y[:, :width] from rows [pairs, ld_rows] and elsewhere[:, :, :width].
struct JoinArgs {
  const int32_t* ids = nullptr;
  const float* weights = nullptr;
  const float* rows = nullptr;
  int64_t ld_rows = 0;
  const float* elsewhere = nullptr;
  ExpertExchange exchange;  // with flags: its reply is awaited first
  float* y = nullptr;
  int64_t hidden = 0;
  int64_t width = 0;
  int64_t num_tokens = 0;
  int32_t top_k = 0;
};
[[nodiscard]] inline JoinArgs join_args(const MoeBatch& batch, const float* rows,
                                        const float* elsewhere, float* y) {
  return {.ids = batch.expert_ids,
          .weights = batch.expert_weights,
          .rows = rows,
          .ld_rows = batch.hidden,
          .elsewhere = elsewhere,
          .exchange = {},
          .y = y,
          .hidden = batch.hidden,
          .width = batch.hidden,
          .num_tokens = batch.num_tokens,
          .top_k = batch.top_k};
}
void join_columns(Queue& queue, const JoinArgs& args);

// gate[row] = silu(gate[row]) ∘ up[row] for rows of experts first … end−1.
struct SwigluArgs {
  float* gate = nullptr;
  const float* up = nullptr;
  int64_t stride = 0;
  int32_t width = 0;
  int64_t num_rows = 0;
  const int32_t* expert_of = nullptr;
  int32_t first_expert = 0;
  int32_t end_expert = 0;
};
void swiglu_rows(Queue& queue, const SwigluArgs& args);

}  // namespace hotset::cuda
