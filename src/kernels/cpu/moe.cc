// SPDX-License-Identifier: Apache-2.0
#include "kernels/moe.h"

#include <algorithm>
#include <atomic>
#include <span>
#include <utility>

#include "kernels/cpu/moe_pass.h"
#include "kernels/cpu/prefetch.h"
#include "kernels/cpu/read_ahead.h"

namespace hotset {
namespace cpu {
namespace {

constexpr int64_t kPlanBytes = int64_t{16} << 10;
constexpr int64_t kAheadBytes = int64_t{128} << 10;  // prefetched while waiting; fits a small L2

}  // namespace

// Tiles of the i-th active expert that are this thread's.
Range MoePass::dealt(const DealList& list, int64_t i, int worker) const {
  const TileDeal& deal = active_[i].*list.deal;
  if (by_owner_) return owned_tiles(active_[i].id, deal.num_tiles, worker, num_workers_);
  return tile_share(even_share(list.cost, worker, num_workers_), deal.cost_before, deal.cost,
                    deal.num_tiles);
}

// A thread's deal of a list, chunk by chunk.
class MoePass::Deal {
 public:
  Deal(const MoePass& pass, const DealList& list, int worker)
      : pass_(&pass), list_(&list), worker_(worker) {}

  Chunk next() {
    for (; at_ < list_->num_experts; ++at_, done_ = 0) {
      const Range tiles = pass_->dealt(*list_, at_, worker_);
      const int64_t begin = std::max(tiles.begin, done_);
      if (begin >= tiles.end) continue;
      const ActiveExpert& expert = pass_->active_[at_];
      done_ = std::min(tiles.end, begin + (expert.*list_->deal).max_chunk);
      return {&expert, {begin, done_}};
    }
    return {};
  }

 private:
  const MoePass* pass_;
  const DealList* list_;
  int worker_;
  int64_t at_ = 0;    // expert
  int64_t done_ = 0;  // end of its tiles that were handed out
};

// What a thread computes of a list: its own deal, then, thread by thread, what the others have not
// begun.
class MoePass::Walk {
 public:
  Walk(const MoePass& pass, const DealList& list, int worker)
      : pass_(pass), list_(list), worker_(worker), whose_(worker), deal_(pass, list, worker) {}

  Chunk next() {
    while (num_ended_ < pass_.num_workers_) {
      const Chunk chunk = begin_one();
      if (chunk.expert != nullptr) return chunk;
      ++num_ended_;
      num_passed_ = 0;
      whose_ = (whose_ + 1) % pass_.num_workers_;
      deal_ = Deal(pass_, list_, whose_);
    }
    return {};
  }
  // What next() will return unless somebody else begins it. Of others' deals nothing is known.
  [[nodiscard]] Chunk likely_next() const {
    Deal ahead = deal_;
    return whose_ == worker_ ? ahead.next() : Chunk{};
  }

 private:
  // The deal's first chunk that nobody has begun.
  Chunk begin_one() {
    const std::atomic_ref<int64_t> chunks(list_.begun[whose_].chunks);
    const std::atomic_ref<int64_t> all(list_.begun[whose_].all);
    if (all.load(std::memory_order_relaxed) != 0) return {};
    const int64_t wanted = chunks.fetch_add(1, std::memory_order_relaxed);
    for (Chunk chunk = deal_.next(); chunk.expert != nullptr; chunk = deal_.next()) {
      if (num_passed_++ == wanted) return chunk;
    }
    all.store(1, std::memory_order_relaxed);
    return {};
  }

  const MoePass& pass_;
  const DealList& list_;
  int worker_;
  int whose_;
  Deal deal_;
  int64_t num_passed_ = 0;  // of its chunks
  int num_ended_ = 0;       // deals that are begun to their end
};

// The groups of columns [begin, end) of all tokens, one token behind the other, to rows of `to`.
void MoePass::quantize_tokens(const InputKey& key, const Activations& to, Range groups) {
  const int64_t each = to.group_stride, subs = to.sub_stride / each;
  for (int64_t at = groups.begin; at < groups.end;) {
    const int64_t token = at / each, group = at % each;
    const int64_t end = std::min(each, group + groups.end - at);
    const int64_t col = group * key.group;
    const int64_t cols = std::min(end * key.group, batch_.hidden) - col;
    kernels_.quantize(batch_.x + token * batch_.hidden + col, nullptr, cols, key.group,
                      to.q + token * to.q_stride + col,
                      to.scale + token * to.sub_stride + group * subs,
                      to.sum + token * to.sub_stride + group * subs,
                      to.group_sum + token * to.group_stride + group);
    at += end - group;
  }
}

// A thread's own copies, or its share of the one for all.
void MoePass::prepare_token_inputs(int worker) {
  for (int64_t i = 0; i < num_shared_; ++i) {
    const InputKey& key = shared_[i].key;
    if (!key.integer) continue;  // x as it is
    const Activations& to = shared_[i].values;
    const int64_t groups = batch_.num_tokens * to.group_stride;
    if (input_copies_ > 1) {
      quantize_tokens(key, to.from_row(worker * batch_.num_tokens), {0, groups});
    } else {
      quantize_tokens(key, to, even_share(groups, worker, num_workers_));
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
    prepare_row(kernels_, down.key, down.input, row, act_ + slot * max_width_, down.weight.cols);
  });
}

// It lies in the caller's cache; line by line, when needed, would be slow.
void MoePass::prefetch_plan() const {
  const auto bytes = num_active_ * static_cast<int64_t>(sizeof(ActiveExpert));
  prefetch_lines(reinterpret_cast<const std::byte*>(active_), std::min(bytes, kPlanBytes));
  prefetch_lines(reinterpret_cast<const std::byte*>(formats_),
                 num_formats_ * static_cast<int64_t>(sizeof(TileFormat)));
}

void MoePass::prepare_inputs(int worker) {
  if (reads_ahead_) prefetch_plan();
  prepare_token_inputs(worker);
  if (any_per_slot_) prepare_slot_inputs(even_share(num_slots_, worker, num_workers_));
  if (input_copies_ > 1 && !any_per_slot_) return;  // nobody waits for anybody's
  RunPrefetcher ahead(reads_ahead_ ? kAheadBytes : 0);
  const Chunk first = Deal(*this, gate_up_list_, worker).next();
  bool is_first = true;
  queue_.pool.barrier([&] {
    return ahead([&]() -> std::span<const std::byte> {
      if (!std::exchange(is_first, false) || first.expert == nullptr) return {};
      const Projection& gate = first.expert->gate;
      return {gate.tile(first.tiles.begin), gate.tile(first.tiles.end)};
    });
  });
}

// All slots against a run of at most kActRows tiles. `next` is probably read then.
void MoePass::gate_up_tiles(const Chunk& chunk, int worker, const std::byte* next) {
  const ActiveExpert& expert = *chunk.expert;
  const Range tiles = chunk.tiles;
  const int64_t width = (tiles.end - tiles.begin) * kTileRows;
  const int64_t rows = std::min(width, expert.gate.weight.rows - tiles.begin * kTileRows);
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
        if (input_copies_ > 1 && input.q != nullptr) {
          input = input.from_row(worker * batch_.num_tokens);
        }
        input.rows += first;
      }
      run_tiles(kernels_, p.weight, *p.format, input, tiles, count, y, ldy, then);
    };
    const bool last = first + count == expert.num_slots;
    multiply(expert.gate, gate, max_width_, expert.up.tile(tiles.begin));
    multiply(expert.up, up, width, last ? next : expert.gate.tile(tiles.begin));
    for (int64_t i = 0; i < count; ++i) {
      kernels_.silu_mul(rows, gate + i * max_width_, up + i * width);
    }
  }
  if (quantize_early_) quantize_pairs(expert, tiles);
}

// The two tiles of a sub-block may be two threads': who comes second rounds it.
void MoePass::quantize_pairs(const ActiveExpert& expert, Range tiles) {
  constexpr int64_t kPair = kSubBlock / kTileRows;
  static_assert(kPair == 2);
  const Range slots{0, expert.num_slots};
  const auto half = [&](int64_t tile) {
    const std::atomic_ref<uint8_t> done(pair_tiles_[(expert.first_tile + tile) / kPair]);
    if (done.fetch_add(1, std::memory_order_acq_rel) == 0) return;
    quantize_act(expert, {tile / kPair * kPair, tile / kPair * kPair + kPair}, slots);
  };
  if (tiles.begin % kPair != 0) half(tiles.begin++);
  const int64_t whole = tiles.end - (tiles.end - tiles.begin) % kPair;
  if (tiles.begin < whole) quantize_act(expert, {tiles.begin, whole}, slots);
  if (whole < tiles.end) half(whole);
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
    const int64_t subs = expert.down.weight.group / kSubBlock;
    for (int64_t slot = 0; slot < expert.num_slots; ++slot) {
      const int64_t row = worker * num_slots_ + expert.slot_begin + slot;
      kernels_.sum_groups(in.group_stride, subs, in.scale + slot * in.sub_stride,
                          in.sum + slot * in.sub_stride, group_sums_ + row * max_groups_);
    }
  }
}

// All of an expert's slots against tiles of down, to where they are summed or wanted.
void MoePass::down_tiles(const Chunk& chunk, int worker, const std::byte* next) {
  const ActiveExpert& expert = *chunk.expert;
  const Projection& down = expert.down;
  Activations input = down.input;
  if (quantize_early_) {
    input.group_sum = group_sums_ + (worker * num_slots_ + expert.slot_begin) * max_groups_;
    input.group_stride = max_groups_;
  }
  const int64_t first_row = chunk.tiles.begin * kTileRows;
  const auto out = [&](int64_t slot) {
    return y_ + pair_of_[expert.slot_begin + slot] * batch_.hidden + first_row;
  };
  if (each_output_ && expert.num_slots == 1) {
    run_tiles(kernels_, down.weight, *down.format, input, chunk.tiles, 1, out(0), batch_.hidden,
              next);
    return;
  }
  const int64_t ld_partial = down_tiles_ * kTileRows;
  float* partial = partial_of(worker) + (each_output_ ? 0 : expert.slot_begin * ld_partial);
  run_tiles(kernels_, down.weight, *down.format, input, chunk.tiles, expert.num_slots, partial,
            ld_partial, next);
  if (!each_output_) return;
  const int64_t count = std::min(chunk.tiles.end * kTileRows, batch_.hidden) - first_row;
  for (int64_t slot = 0; slot < expert.num_slots; ++slot) {
    std::copy_n(partial + slot * ld_partial, count, out(slot));
  }
}

void MoePass::gate_up_share(int worker, const std::byte* down_first) {
  Walk walk(*this, gate_up_list_, worker);
  for (Chunk now = walk.next(); now.expert != nullptr; now = walk.next()) {
    const Chunk then = walk.likely_next();
    gate_up_tiles(now, worker,
                  then.expert != nullptr ? then.expert->gate.tile(then.tiles.begin) : down_first);
  }
}

void MoePass::down_share(int worker) {
  const int64_t runs = each_output_ ? 1 : num_active_;
  Walk walk(*this, down_list_, worker);
  for (Chunk now = walk.next(); now.expert != nullptr; now = walk.next()) {
    const Chunk then = walk.likely_next();
    for (int64_t i = 0; i < runs; ++i) {
      const ActiveExpert* expert = now.expert + i;
      const std::byte* next = i + 1 < runs             ? expert[1].down.tile(now.tiles.begin)
                              : then.expert != nullptr ? then.expert->down.tile(then.tiles.begin)
                                                       : nullptr;
      down_tiles({expert, now.tiles}, worker, next);
    }
    if (!each_output_) {
      sum_experts({now.tiles.begin * kTileRows, std::min(now.tiles.end * kTileRows, batch_.hidden)},
                  partial_of(worker), down_tiles_ * kTileRows);
    }
  }
}

// Down's weights of a thread's deal, run by run, in the order of reading.
class MoePass::DownRuns {
 public:
  DownRuns(const MoePass& pass, int worker)
      : deal_(pass, pass.down_list_, worker),
        experts_each_(pass.each_output_ ? 1 : pass.num_active_),
        now_(deal_.next()) {}

  [[nodiscard]] const std::byte* first() const {
    return now_.expert != nullptr ? now_.expert->down.tile(now_.tiles.begin) : nullptr;
  }
  std::span<const std::byte> next() {
    if (now_.expert == nullptr) return {};
    const Projection& down = now_.expert[num_read_].down;
    const std::span<const std::byte> run(down.tile(now_.tiles.begin), down.tile(now_.tiles.end));
    if (++num_read_ == experts_each_) {
      num_read_ = 0;
      now_ = deal_.next();
    }
    return run;
  }

 private:
  Deal deal_;
  int64_t experts_each_;  // of a chunk
  int64_t num_read_ = 0;  // of them
  Chunk now_;
};

void MoePass::work(int worker) {
  prepare_inputs(worker);
  DownRuns down(*this, worker);
  gate_up_share(worker, down.first());
  RunPrefetcher ahead(reads_ahead_ ? kAheadBytes : 0);
  const auto meanwhile = [&] { return ahead([&] { return down.next(); }); };
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
  if (num_active_ == 0) {
    if (!each_output_) std::fill_n(y_, batch_.num_tokens * batch_.hidden, 0.0f);
    return;
  }
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
