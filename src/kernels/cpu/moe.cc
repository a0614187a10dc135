// SPDX-License-Identifier: Apache-2.0
#include "kernels/moe.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/moe_pass.h"

namespace hotset {
namespace cpu {
namespace {

constexpr int64_t kActRows = 64;  // tiles of one gate·up piece with one token
constexpr int64_t kLine = 64;
constexpr int64_t kLinesAtOnce = 16;
constexpr int64_t kFirstBytes = int64_t{8} << 10;    // prefetched while inputs are prepared
constexpr int64_t kAheadBytes = int64_t{192} << 10;  // while waiting; fits a small L2 cache

void prefetch_lines(const std::byte* at, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += kLine) __builtin_prefetch(at + i, 0, 2);
}

// Asks for the lines of runs of weights, some at a time, until `limit` bytes.
class Ahead {
 public:
  explicit Ahead(int64_t limit) : limit_(limit) {}
  // run(i): the i-th run, an empty one at the end.
  template <typename RunFn>
  bool operator()(const RunFn& run) {
    if (at_ == end_) {
      const std::span<const std::byte> next = run(run_++);
      at_ = next.data();
      end_ = at_ + next.size();
    }
    const int64_t bytes = std::min({end_ - at_, limit_, kLinesAtOnce * kLine});
    prefetch_lines(at_, bytes);
    at_ += bytes;
    limit_ -= bytes;
    return bytes > 0;
  }

 private:
  int64_t limit_;
  int64_t run_ = 0;
  const std::byte* at_ = nullptr;
  const std::byte* end_ = nullptr;
};

}  // namespace

void MoePass::prepare_token_inputs(Range tokens, int64_t row_offset) {
  for (int64_t i = 0; i < num_shared_; ++i) {
    for (int64_t t = tokens.begin; t < tokens.end; ++t) {
      prepare_row(kernels_, shared_[i].key, shared_[i].values, row_offset + t,
                  batch_.x + t * batch_.hidden, batch_.hidden);
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

// What a thread will read first.
void MoePass::prefetch_gate(int worker) const {
  const Range cost = even_share(gate_up_cost_, worker, num_workers_);
  int64_t before = 0;
  for (int64_t i = 0; i < num_active_; ++i) {
    const ActiveExpert& expert = active_[i];
    const Range units = tile_share(cost, before, expert.unit_cost, expert.num_units);
    before += expert.unit_cost * expert.num_units;
    if (units.begin == units.end) continue;
    prefetch_lines(expert.gate.tile(units.begin * unit_),
                   std::min(kFirstBytes, expert.gate.format->tile_bytes));
    return;
  }
}

void MoePass::prepare_inputs(int worker) {
  if (reads_ahead_) prefetch_gate(worker);
  if (input_copies_ > 1) {
    prepare_token_inputs({0, batch_.num_tokens}, worker * batch_.num_tokens);
    if (!any_per_slot_) return;
  } else {
    prepare_token_inputs(even_share(batch_.num_tokens, worker, num_workers_), 0);
  }
  if (any_per_slot_) prepare_slot_inputs(even_share(num_slots_, worker, num_workers_));
  queue_.pool.barrier();
}

// All slots against a run of at most kActRows tiles.
void MoePass::gate_up_tiles(const ActiveExpert& expert, Range tiles, int worker,
                            const std::byte* next) {
  const int64_t width = (tiles.end - tiles.begin) * kTileRows;
  const int64_t rows = std::min(width, expert.gate.weight->rows - tiles.begin * kTileRows);
  const int64_t max_slots = kActRows * kTileRows / width;
  alignas(64) float up[kActRows * kTileRows];
  for (int64_t first = 0; first < expert.num_slots; first += max_slots) {
    const int64_t count = std::min(max_slots, expert.num_slots - first);
    float* gate = act_ + (expert.slot_begin + first) * max_width_ + tiles.begin * kTileRows;
    const auto multiply = [&](const Projection& p, float* y, int64_t ldy, const std::byte* then) {
      Activations input = p.input;
      if (input.rows == nullptr) {
        input = input.from_row(first);
      } else {
        if (input.q != nullptr && input_copies_ > 1) {
          input = input.from_row(worker * batch_.num_tokens);
        }
        input.rows += first;
      }
      run_tiles(kernels_, *p.weight, *p.format, input, tiles, count, y, ldy, then);
    };
    multiply(expert.gate, gate, max_width_, expert.up.tile(tiles.begin));
    multiply(expert.up, up, width, next);
    for (int64_t i = 0; i < count; ++i) {
      kernels_.silu_mul(rows, gate + i * max_width_, up + i * width);
    }
    if (quantize_early_) quantize_act(expert, tiles, {first, first + count});
  }
}

// Sub-blocks alone, as groups of their own; sum_down_groups() adds up what real groups need.
void MoePass::quantize_act(const ActiveExpert& expert, Range tiles, Range slots) {
  const Activations& to = expert.down.input;
  const int64_t begin = tiles.begin * kTileRows, cols = (tiles.end - tiles.begin) * kTileRows;
  float sums[kActRows * kTileRows / kSubBlock];
  for (int64_t slot = slots.begin; slot < slots.end; ++slot) {
    const int64_t sub = slot * to.sub_stride + begin / kSubBlock;
    kernels_.quantize(act_ + (expert.slot_begin + slot) * max_width_ + begin, nullptr, cols,
                      kSubBlock, to.q + slot * to.q_stride + begin, to.scale + sub, to.sum + sub,
                      sums);
  }
}

// One slot takes its expert's tiles in long runs, as memory likes it; many slots take few at once.
void MoePass::gate_up_share(int worker) {
  const Range cost = even_share(gate_up_cost_, worker, num_workers_);
  const ActiveExpert* waiting = nullptr;
  Range waiting_tiles;
  const auto finish = [&](const std::byte* next) {
    if (waiting != nullptr) gate_up_tiles(*waiting, waiting_tiles, worker, next);
  };
  int64_t before = 0;
  for (int64_t i = 0; i < num_active_; ++i) {
    const ActiveExpert& expert = active_[i];
    const Range units = tile_share(cost, before, expert.unit_cost, expert.num_units);
    const int64_t run = std::max<int64_t>(1, kActRows / unit_ / expert.num_slots);
    for (int64_t unit = units.begin; unit < units.end; unit += run) {
      const Range tiles{unit * unit_, std::min(unit + run, units.end) * unit_};
      finish(expert.gate.tile(tiles.begin));
      waiting = &expert;
      waiting_tiles = tiles;
    }
    before += expert.unit_cost * expert.num_units;
  }
  finish(num_active_ > 0 ? active_[0].down.tile(down_begin_[worker]) : nullptr);
}

// y[t, rows] = Σ over the token's ranks, in order.
void MoePass::sum_experts(Range rows, const float* partial, int64_t ld_partial) {
  const int64_t count = rows.end - rows.begin;
  for (int64_t t = 0; t < batch_.num_tokens; ++t) {
    float* y = y_ + t * batch_.hidden + rows.begin;
    std::fill(y, y + count, 0.0f);
    for (int64_t k = 0; k < batch_.top_k; ++k) {
      const int64_t pair = t * batch_.top_k + k;
      if (slot_of_[pair] < 0) continue;
      kernels_.add_scaled(count, batch_.expert_weights[pair], partial + slot_of_[pair] * ld_partial,
                          y);
    }
  }
}

// Every thread for itself: a few dozen numbers, not worth a meeting.
void MoePass::sum_down_groups(int worker) {
  for (int64_t i = 0; i < num_active_; ++i) {
    const ActiveExpert& expert = active_[i];
    const Activations& in = expert.down.input;
    const int64_t subs = expert.down.weight->group / kSubBlock;
    for (int64_t slot = 0; slot < expert.num_slots; ++slot) {
      const int64_t row = worker * num_slots_ + expert.slot_begin + slot;
      kernels_.sum_groups(in.group_stride, subs, in.scale + slot * in.sub_stride,
                          in.sum + slot * in.sub_stride, group_sums_ + row * max_groups_);
    }
  }
}

// All of an expert's slots against tiles of down, to where they are summed or wanted.
void MoePass::down_tiles(const ActiveExpert& expert, Range piece, int worker,
                         const std::byte* next) {
  const Projection& down = expert.down;
  Activations input = down.input;
  if (quantize_early_) {
    input.group_sum = group_sums_ + (worker * num_slots_ + expert.slot_begin) * max_groups_;
    input.group_stride = max_groups_;
  }
  const int64_t first_row = piece.begin * kTileRows;
  const auto out = [&](int64_t slot) {
    return y_ + pair_of_[expert.slot_begin + slot] * batch_.hidden + first_row;
  };
  if (each_output_ && expert.num_slots == 1) {
    run_tiles(kernels_, *down.weight, *down.format, input, piece, 1, out(0), batch_.hidden, next);
    return;
  }
  const int64_t ld_partial = partial_tiles_ * kTileRows;
  float* partial = partial_of(worker) + expert.slot_begin * ld_partial;
  run_tiles(kernels_, *down.weight, *down.format, input, piece, expert.num_slots, partial,
            ld_partial, next);
  if (!each_output_) return;
  const int64_t count = std::min(piece.end * kTileRows, batch_.hidden) - first_row;
  for (int64_t slot = 0; slot < expert.num_slots; ++slot) {
    std::copy_n(partial + slot * ld_partial, count, out(slot));
  }
}

// A thread owns rows of the output, so that the sum over experts needs no further meeting.
void MoePass::down_share(int worker) {
  const Range tiles{down_begin_[worker], down_begin_[worker + 1]};
  for (int64_t begin = tiles.begin; begin < tiles.end; begin += partial_tiles_) {
    const Range piece{begin, std::min(begin + partial_tiles_, tiles.end)};
    for (int64_t i = 0; i < num_active_; ++i) {
      const bool last = i + 1 == num_active_;
      const std::byte* next = active_[last ? 0 : i + 1].down.tile(last ? piece.end : begin);
      down_tiles(active_[i], piece, worker, last && piece.end == tiles.end ? nullptr : next);
    }
    if (each_output_) continue;
    sum_experts({begin * kTileRows, std::min(piece.end * kTileRows, batch_.hidden)},
                partial_of(worker), partial_tiles_ * kTileRows);
  }
}

void MoePass::work(int worker) {
  prepare_inputs(worker);
  gate_up_share(worker);
  const int64_t first = down_begin_[worker];
  const int64_t end = std::min(down_begin_[worker + 1], first + partial_tiles_);
  const auto down_run = [&](int64_t i) -> std::span<const std::byte> {
    if (i >= num_active_) return {};
    const Projection& down = active_[i].down;
    return {down.tile(first), down.tile(end)};
  };
  Ahead ahead(reads_ahead_ ? kAheadBytes : 0);
  const auto meanwhile = [&] { return ahead(down_run); };
  queue_.pool.barrier(meanwhile);
  if (quantize_early_) {
    sum_down_groups(worker);
  } else if (any_down_prepared_) {
    prepare_down_inputs(even_share(num_slots_, worker, num_workers_));
    queue_.pool.barrier(meanwhile);
  }
  down_share(worker);
}

void MoePass::run() {
  plan();
  queue_.pool.run([&](int worker, int) { work(worker); });
}

}  // namespace cpu

namespace {

void run_passes(cpu::Queue& queue, std::span<const ExpertView> experts, const MoeBatch& batch,
                float* y, bool each_output) {
  const int64_t rows_each = each_output ? batch.top_k : 1;
  for (int64_t first = 0; first < batch.num_tokens; first += cpu::MoePass::kMaxTokens) {
    MoeBatch part = batch;
    part.num_tokens = std::min(cpu::MoePass::kMaxTokens, batch.num_tokens - first);
    part.x += first * batch.hidden;
    part.expert_ids += first * batch.top_k;
    if (part.expert_weights != nullptr) part.expert_weights += first * batch.top_k;
    const cpu::ScratchScope scope(queue.scratch);
    cpu::MoePass(queue, experts, part, y + first * rows_each * batch.hidden, each_output).run();
  }
}

}  // namespace

void moe_experts(cpu::Queue& queue, std::span<const ExpertView> experts, const MoeBatch& batch,
                 float* y) {
  run_passes(queue, experts, batch, y, false);
}

void moe_outputs(cpu::Queue& queue, std::span<const ExpertView> experts, const MoeBatch& batch,
                 float* rows) {
  run_passes(queue, experts, batch, rows, true);
}

size_t moe_scratch_bytes(int64_t num_tokens, int64_t hidden, int64_t max_width, int32_t top_k,
                         int64_t num_experts, int num_threads) {
  return cpu::MoePass::scratch_bytes(num_tokens, hidden, max_width, top_k, num_experts,
                                     num_threads);
}

}  // namespace hotset
