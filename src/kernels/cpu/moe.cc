// SPDX-License-Identifier: Apache-2.0
#include "kernels/moe.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/cpu/matmul_inputs.h"

namespace hotset {
namespace {

using cpu::Activations;
using cpu::InputKey;
using cpu::MatmulKernels;
using cpu::Range;
using cpu::TileFormat;

constexpr int64_t kMaxTokens = 1024;                 // of one pass; more would gain little reuse
constexpr int64_t kPartialBytes = int64_t{1} << 20;  // of down's outputs before they are summed
constexpr int64_t kActRows = 64;                     // tokens of one gate·up piece
constexpr int64_t kAmxTokens = 16;                   // from which on AMX is used
constexpr int64_t kPrepareAlone = 8192;  // values the caller prepares without the others

struct Projection {
  const PackedMatrix* weight = nullptr;
  InputKey key;
  Activations input;
  bool input_per_slot = false;
  TileFormat format;
};

// An expert that some token of the pass chose. Its tokens are slots [slot_begin, slot_begin +
// num_slots), in token order.
struct ActiveExpert {
  int64_t slot_begin = 0;
  int64_t num_slots = 0;
  Projection gate, up, down;
};

// Inputs of all tokens in the model's order, shared by every expert that wants them so.
struct SharedInput {
  InputKey key;
  Activations values;
};

// Where a pass writes: weighted sums, or a row for every choice.
struct MoeTarget {
  float* y = nullptr;     // [num_tokens, hidden]
  float* rows = nullptr;  // [num_tokens, top_k, hidden]
};

// One pass over up to kMaxTokens tokens.
class MoePass {
 public:
  MoePass(cpu::Queue& queue, std::span<const ExpertView> experts, const MoeBatch& batch,
          MoeTarget to)
      : queue_(queue),
        kernels_(cpu::matmul_kernels(queue.isa)),
        experts_(experts),
        batch_(batch),
        to_(to) {}

  void run();

 private:
  void sort_by_expert();
  void plan_experts();
  void plan_projection(Projection& p, const PackedMatrix& weight, int64_t rows, int64_t cols,
                       const TileFormat* previous);
  void plan_token_input(Projection& p, const ActiveExpert& expert);
  void prepare_token_inputs(Range tokens);
  void prepare_slot_inputs(Range slots);
  void gate_up_share(Range cost);
  void gate_up_tiles(const ActiveExpert& expert, Range tiles);
  void prepare_down_inputs(Range slots);
  void down_share(Range tiles, int worker);
  void sum_experts(Range rows, const float* partial, int64_t ld_partial);
  void store_outputs(Range rows, const float* partial, int64_t ld_partial);
  template <typename Fn>
  void for_slots(Range slots, Fn fn);
  [[nodiscard]] int64_t gate_up_cost(const ActiveExpert& expert) const {
    return cpu::tile_cost(*expert.gate.weight, expert.num_slots) +
           cpu::tile_cost(*expert.up.weight, expert.num_slots);
  }

  cpu::Queue& queue_;
  const MatmulKernels& kernels_;
  std::span<const ExpertView> experts_;
  const MoeBatch& batch_;
  MoeTarget to_;

  int64_t num_slots_ = 0;
  int32_t* slot_of_ = nullptr;    // [num_tokens, top_k], -1: no expert
  int32_t* token_of_ = nullptr;   // [num_slots]
  int32_t* expert_of_ = nullptr;  // [num_active] id
  ActiveExpert* active_ = nullptr;
  int64_t num_active_ = 0;
  SharedInput* shared_ = nullptr;  // [num_shared]
  int64_t num_shared_ = 0;
  bool any_per_slot_ = false;  // some gate or up reads rows made for its expert alone
  bool any_down_prepared_ = false;
  int64_t total_cost_ = 0;
  int64_t max_width_ = 0;
  float* act_ = nullptr;       // [num_slots, max_width]
  float* partial_ = nullptr;   // [num_threads, partial_rows, num_slots] in pieces
  int64_t partial_tiles_ = 0;  // tiles of hidden a thread finishes at once
};

// Counting sort of (token, rank) by expert id; within an expert by token.
void MoePass::sort_by_expert() {
  const int64_t num_pairs = batch_.num_tokens * batch_.top_k;
  const auto num_experts = static_cast<int64_t>(experts_.size());
  auto* begin = queue_.scratch.take<int32_t>(num_experts + 1);
  slot_of_ = queue_.scratch.take<int32_t>(num_pairs);
  token_of_ = queue_.scratch.take<int32_t>(num_pairs);
  expert_of_ = queue_.scratch.take<int32_t>(std::min(num_experts, num_pairs));
  std::fill(begin, begin + num_experts + 1, 0);
  for (int64_t i = 0; i < num_pairs; ++i) {
    const int32_t id = batch_.expert_ids[i];
    HS_CHECK(id < num_experts, "expert {} of {}", id, num_experts);
    if (id >= 0) ++begin[id + 1];
  }
  for (int64_t e = 0; e < num_experts; ++e) {
    if (begin[e + 1] > 0) expert_of_[num_active_++] = static_cast<int32_t>(e);
    begin[e + 1] += begin[e];
  }
  num_slots_ = begin[num_experts];
  active_ = queue_.scratch.take<ActiveExpert>(num_active_);
  for (int64_t i = 0; i < num_active_; ++i) {
    const int32_t e = expert_of_[i];
    active_[i] = {};
    active_[i].slot_begin = begin[e];
    active_[i].num_slots = begin[e + 1] - begin[e];
  }
  for (int64_t i = 0; i < num_pairs; ++i) {
    const int32_t id = batch_.expert_ids[i];
    slot_of_[i] = id >= 0 ? begin[id]++ : -1;
    if (id >= 0) token_of_[slot_of_[i]] = static_cast<int32_t>(i / batch_.top_k);
  }
}

void MoePass::plan_projection(Projection& p, const PackedMatrix& weight, int64_t rows, int64_t cols,
                              const TileFormat* previous) {
  HS_CHECK(weight.rows == rows && weight.cols == cols, "an expert's [{}, {}] where [{}, {}] fits",
           weight.rows, weight.cols, rows, cols);
  p.weight = &weight;
  p.key = cpu::input_key(weight, queue_.arithmetic);
  p.format = tile_format(weight, previous);
}

// Inputs in the model's order are prepared once per token; others once per slot, and so are those
// that AMX is to read, since its tiles want tokens one behind the other.
void MoePass::plan_token_input(Projection& p, const ActiveExpert& expert) {
  const bool for_amx =
      queue_.isa == cpu::Isa::kAmxInt8 && p.key.integer && expert.num_slots >= kAmxTokens;
  p.input_per_slot = p.key.order != nullptr || for_amx;
  if (p.input_per_slot) {
    any_per_slot_ = true;
    p.input = take_activations(queue_.scratch, p.key, expert.num_slots, batch_.hidden, nullptr, 0);
    return;
  }
  int64_t i = 0;
  while (i < num_shared_ && !(shared_[i].key == p.key)) ++i;
  if (i == num_shared_) {
    shared_[num_shared_++] = {p.key, take_activations(queue_.scratch, p.key, batch_.num_tokens,
                                                      batch_.hidden, batch_.x, batch_.hidden)};
  }
  p.input = shared_[i].values;
  p.input.rows = token_of_ + expert.slot_begin;
}

void MoePass::plan_experts() {
  for (int64_t i = 0; i < num_active_; ++i) {
    max_width_ = std::max(max_width_, experts_[static_cast<size_t>(expert_of_[i])].gate.rows);
  }
  act_ = queue_.scratch.take<float>(num_slots_ * max_width_);
  shared_ = queue_.scratch.take<SharedInput>(2 * num_active_);
  for (int64_t i = 0; i < num_active_; ++i) {
    const ExpertView& view = experts_[static_cast<size_t>(expert_of_[i])];
    ActiveExpert& expert = active_[i];
    const int64_t width = view.gate.rows;
    plan_projection(expert.gate, view.gate, width, batch_.hidden,
                    i > 0 ? &active_[i - 1].down.format : nullptr);
    plan_projection(expert.up, view.up, width, batch_.hidden, &expert.gate.format);
    plan_projection(expert.down, view.down, batch_.hidden, width, &expert.up.format);
    plan_token_input(expert.gate, expert);
    if (expert.up.key == expert.gate.key) {
      expert.up.input = expert.gate.input;
    } else {
      plan_token_input(expert.up, expert);
    }
    expert.down.input = take_activations(queue_.scratch, expert.down.key, expert.num_slots, width,
                                         act_ + expert.slot_begin * max_width_, max_width_);
    any_down_prepared_ |= !expert.down.key.is_plain();
    total_cost_ += gate_up_cost(expert) * view.gate.num_tiles();
  }
  const int64_t num_threads = queue_.pool.num_threads();
  const int64_t tile_floats = num_slots_ * kTileRows;
  const int64_t tiles = ceil_div(ceil_div(batch_.hidden, kTileRows), num_threads);
  partial_tiles_ = std::clamp<int64_t>(kPartialBytes / (4 * tile_floats), 1, tiles);
  partial_ = queue_.scratch.take<float>(num_threads * partial_tiles_ * tile_floats);
}

void MoePass::prepare_token_inputs(Range tokens) {
  for (int64_t i = 0; i < num_shared_; ++i) {
    for (int64_t t = tokens.begin; t < tokens.end; ++t) {
      prepare_row(kernels_, shared_[i].key, shared_[i].values, t, batch_.x + t * batch_.hidden,
                  batch_.hidden);
    }
  }
}

// fn(expert, slot inside the expert, slot) for all slots of the range.
template <typename Fn>
void MoePass::for_slots(Range slots, Fn fn) {
  for (int64_t i = 0; i < num_active_; ++i) {
    const ActiveExpert& expert = active_[i];
    const int64_t begin = std::max(slots.begin, expert.slot_begin);
    const int64_t end = std::min(slots.end, expert.slot_begin + expert.num_slots);
    for (int64_t slot = begin; slot < end; ++slot) fn(expert, slot - expert.slot_begin, slot);
  }
}

void MoePass::prepare_slot_inputs(Range slots) {
  for_slots(slots, [&](const ActiveExpert& expert, int64_t row, int64_t slot) {
    const float* x = batch_.x + token_of_[slot] * batch_.hidden;
    for (const Projection* p : {&expert.gate, &expert.up}) {
      if (p->input_per_slot) prepare_row(kernels_, p->key, p->input, row, x, batch_.hidden);
    }
  });
}

void MoePass::prepare_down_inputs(Range slots) {
  for_slots(slots, [&](const ActiveExpert& expert, int64_t row, int64_t slot) {
    const Projection& down = expert.down;
    prepare_row(kernels_, down.key, down.input, row, act_ + slot * max_width_, down.weight->cols);
  });
}

// All slots against a run of at most kActRows tiles.
void MoePass::gate_up_tiles(const ActiveExpert& expert, Range tiles) {
  const int64_t width = (tiles.end - tiles.begin) * kTileRows;
  const int64_t rows = std::min(width, expert.gate.weight->rows - tiles.begin * kTileRows);
  const int64_t max_slots = kActRows * kTileRows / width;
  alignas(64) float up[kActRows * kTileRows];
  for (int64_t first = 0; first < expert.num_slots; first += max_slots) {
    const int64_t count = std::min(max_slots, expert.num_slots - first);
    float* gate = act_ + (expert.slot_begin + first) * max_width_ + tiles.begin * kTileRows;
    const auto multiply = [&](const Projection& p, float* y, int64_t ldy) {
      Activations input = p.input;
      if (input.rows != nullptr) {
        input.rows += first;
      } else {
        input = input.from_row(first);
      }
      run_tiles(kernels_, *p.weight, p.format, input, tiles, count, y, ldy);
    };
    multiply(expert.gate, gate, max_width_);
    multiply(expert.up, up, width);
    for (int64_t i = 0; i < count; ++i) {
      kernels_.silu_mul(rows, gate + i * max_width_, up + i * width);
    }
  }
}

// One slot takes its expert's tiles in long runs, as memory likes it; many slots take them singly.
void MoePass::gate_up_share(Range cost) {
  int64_t before = 0;
  for (int64_t i = 0; i < num_active_; ++i) {
    const ActiveExpert& expert = active_[i];
    const int64_t each = gate_up_cost(expert);
    const int64_t num_tiles = expert.gate.weight->num_tiles();
    const Range tiles = cpu::tile_share(cost, before, each, num_tiles);
    const int64_t run = std::max<int64_t>(1, kActRows / expert.num_slots);
    for (int64_t tile = tiles.begin; tile < tiles.end; tile += run) {
      gate_up_tiles(expert, {tile, std::min(tile + run, tiles.end)});
    }
    before += each * num_tiles;
  }
}

// y[t, rows] = Σ over the token's ranks, in order.
void MoePass::sum_experts(Range rows, const float* partial, int64_t ld_partial) {
  const int64_t count = rows.end - rows.begin;
  for (int64_t t = 0; t < batch_.num_tokens; ++t) {
    float* y = to_.y + t * batch_.hidden + rows.begin;
    std::fill(y, y + count, 0.0f);
    for (int64_t k = 0; k < batch_.top_k; ++k) {
      const int64_t pair = t * batch_.top_k + k;
      if (slot_of_[pair] < 0) continue;
      kernels_.add_scaled(count, batch_.expert_weights[pair], partial + slot_of_[pair] * ld_partial,
                          y);
    }
  }
}

// rows[t, k, rows]: a choice each.
void MoePass::store_outputs(Range rows, const float* partial, int64_t ld_partial) {
  const int64_t count = rows.end - rows.begin;
  for (int64_t pair = 0; pair < batch_.num_tokens * batch_.top_k; ++pair) {
    if (slot_of_[pair] < 0) continue;
    std::copy_n(partial + slot_of_[pair] * ld_partial, count,
                to_.rows + pair * batch_.hidden + rows.begin);
  }
}

// A thread owns rows of the output, so that the sum over experts needs no further meeting.
void MoePass::down_share(Range tiles, int worker) {
  float* partial = partial_ + worker * partial_tiles_ * kTileRows * num_slots_;
  const int64_t ld_partial = partial_tiles_ * kTileRows;
  for (int64_t begin = tiles.begin; begin < tiles.end; begin += partial_tiles_) {
    const Range piece{begin, std::min(begin + partial_tiles_, tiles.end)};
    for (int64_t i = 0; i < num_active_; ++i) {
      const ActiveExpert& expert = active_[i];
      run_tiles(kernels_, *expert.down.weight, expert.down.format, expert.down.input, piece,
                expert.num_slots, partial + expert.slot_begin * ld_partial, ld_partial);
    }
    const Range rows{begin * kTileRows, std::min(piece.end * kTileRows, batch_.hidden)};
    if (to_.rows != nullptr) {
      store_outputs(rows, partial, ld_partial);
    } else {
      sum_experts(rows, partial, ld_partial);
    }
  }
}

void MoePass::run() {
  sort_by_expert();
  plan_experts();
  const bool alone = !any_per_slot_ && batch_.num_tokens * batch_.hidden <= kPrepareAlone;
  if (alone) prepare_token_inputs({0, batch_.num_tokens});
  queue_.pool.run([&](int worker, int num_workers) {
    if (!alone) {
      prepare_token_inputs(cpu::even_share(batch_.num_tokens, worker, num_workers));
      if (any_per_slot_) prepare_slot_inputs(cpu::even_share(num_slots_, worker, num_workers));
      queue_.pool.barrier();
    }
    gate_up_share(cpu::even_share(total_cost_, worker, num_workers));
    queue_.pool.barrier();
    if (any_down_prepared_) {
      prepare_down_inputs(cpu::even_share(num_slots_, worker, num_workers));
      queue_.pool.barrier();
    }
    const int64_t num_tiles = ceil_div(batch_.hidden, kTileRows);
    down_share(cpu::even_share(num_tiles, worker, num_workers), worker);
  });
}

void run_passes(cpu::Queue& queue, std::span<const ExpertView> experts, const MoeBatch& batch,
                MoeTarget to) {
  for (int64_t first = 0; first < batch.num_tokens; first += kMaxTokens) {
    MoeBatch part = batch;
    part.num_tokens = std::min(kMaxTokens, batch.num_tokens - first);
    part.x += first * batch.hidden;
    part.expert_ids += first * batch.top_k;
    part.expert_weights += first * batch.top_k;
    MoeTarget part_to = to;
    if (to.y != nullptr) part_to.y += first * batch.hidden;
    if (to.rows != nullptr) part_to.rows += first * batch.top_k * batch.hidden;
    const cpu::ScratchScope scope(queue.scratch);
    MoePass(queue, experts, part, part_to).run();
  }
}

}  // namespace

void moe_experts(cpu::Queue& queue, std::span<const ExpertView> experts, const MoeBatch& batch,
                 float* y) {
  run_passes(queue, experts, batch, {.y = y});
}

void moe_outputs(cpu::Queue& queue, std::span<const ExpertView> experts, const MoeBatch& batch,
                 float* rows) {
  run_passes(queue, experts, batch, {.rows = rows});
}

size_t moe_scratch_bytes(int64_t num_tokens, int64_t hidden, int64_t max_width, int32_t top_k,
                         int64_t num_experts, int num_threads) {
  const int64_t tokens = std::min(num_tokens, kMaxTokens);
  const int64_t slots = tokens * top_k;
  const int64_t active = std::min(slots, num_experts);
  const int64_t tile_bytes = slots * kTileRows * 4;
  const int64_t partial_tiles =
      std::clamp<int64_t>(kPartialBytes / std::max<int64_t>(tile_bytes, 1), 1,
                          ceil_div(ceil_div(hidden, kTileRows), num_threads));
  const int64_t lists = 4 * (num_experts + 1 + 2 * slots + active) + 16 * 64;
  const auto per_active = static_cast<int64_t>(sizeof(ActiveExpert) + 2 * sizeof(SharedInput));
  size_t bytes = static_cast<size_t>(lists + active * (per_active + 3 * 4 * 64));
  bytes += cpu::input_bytes_bound(2 * tokens, hidden);  // two groupings in the model's order
  bytes += 2 * cpu::input_bytes_bound(slots, hidden);   // gate and up in orders of their own
  bytes += cpu::input_bytes_bound(slots, max_width);    // down
  bytes += static_cast<size_t>(slots * max_width * 4);  // act
  bytes += static_cast<size_t>(num_threads * partial_tiles * tile_bytes);
  return bytes;
}

}  // namespace hotset
