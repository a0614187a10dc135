// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "kernels/cpu/moe_pass.h"
#include "kernels/cpu/read_ahead.h"

namespace hotset::cpu {
namespace {

constexpr int64_t kPartialBytes = int64_t{1} << 20;  // of down's outputs before they are summed
// From which on AMX is faster than AVX-512 (experts_bench).
constexpr int64_t kAmxTokens = 32;
constexpr int64_t kAmxCodebookTokens = 16;
constexpr int64_t kFewSlots = 256;   // up to which a pass is bound by memory
constexpr int64_t kShapes = 3;       // of projections that formats are kept for
constexpr int64_t kOwnedSlots = 64;  // up to which reading ahead may pay; runs are faster without
constexpr int64_t kChunks = 16;      // of a thread's deal, about
constexpr int64_t kOwnInputs = 2;    // up to which every thread rounds all tokens for itself

// Of a unit of down that so many slots take part in.
int64_t most_down_tiles(int64_t num_slots) {
  return std::max<int64_t>(1, kPartialBytes / (std::max<int64_t>(1, num_slots) * kTileRows * 4));
}

bool same_format(const PackedMatrix& a, const PackedMatrix& b) {
  return a.code == b.code && a.scale == b.scale && a.has_zeros == b.has_zeros && a.zero == b.zero &&
         a.cols == b.cols && a.group == b.group &&
         (a.code != CodeKind::kCodebook4 || a.codebook == b.codebook ||
          std::memcmp(a.codebook, b.codebook, 16 * sizeof(float)) == 0);
}

}  // namespace

MoePass::MoePass(Queue& queue, std::span<const ExpertView> experts, const MoeBatch& batch, float* y,
                 bool each_output)
    : queue_(queue),
      kernels_(matmul_kernels(queue.isa)),
      experts_(experts),
      batch_(batch),
      y_(y),
      each_output_(each_output),
      num_workers_(queue.pool.num_threads()) {}

void MoePass::plan() {
  prefetch_views();
  sort_by_expert();
  for (int64_t i = 0; i < num_active_; ++i) {
    max_width_ = std::max(max_width_, experts_[static_cast<size_t>(active_[i].id)].gate.rows);
  }
  act_ = queue_.scratch.take<float>(num_slots_ * max_width_);
  shared_ = queue_.scratch.take<SharedInput>(2 * num_active_);
  formats_ = queue_.scratch.take<TileFormat>(kShapes * num_active_);
  reads_ahead_ = num_slots_ <= kFewSlots;
  by_owner_ = each_output_ && num_slots_ <= kOwnedSlots;
  quantize_early_ = reads_ahead_;
  input_copies_ = batch_.num_tokens <= kOwnInputs ? num_workers_ : 1;
  for (int64_t i = 0; i < num_active_; ++i) plan_expert(i);
  plan_gate_up();
  plan_down();
}

// The views of a step's experts are cold, one cache miss after the other.
void MoePass::prefetch_views() const {
  const int64_t num_pairs = batch_.num_tokens * batch_.top_k;
  if (num_pairs > kFewSlots) return;
  for (int64_t i = 0; i < num_pairs; ++i) {
    if (batch_.expert_ids[i] < 0) continue;
    const auto* view = reinterpret_cast<const std::byte*>(experts_.data() + batch_.expert_ids[i]);
    for (size_t at = 0; at < sizeof(ExpertView); at += 64) __builtin_prefetch(view + at);
  }
}

// Counting sort of (token, rank) by expert id; within an expert by token. Of the many experts that
// nobody chose nothing is written or read but a bit.
void MoePass::sort_by_expert() {
  const int64_t num_pairs = batch_.num_tokens * batch_.top_k;
  const auto num_experts = static_cast<int64_t>(experts_.size());
  const int64_t num_words = ceil_div(num_experts, 64);
  auto* chosen = queue_.scratch.take<uint64_t>(num_words);  // a bit an expert
  auto* next = queue_.scratch.take<int32_t>(num_experts);   // of a chosen one: count, then slot
  slot_of_ = queue_.scratch.take<int32_t>(num_pairs);
  pair_of_ = queue_.scratch.take<int32_t>(num_pairs);
  token_of_ = queue_.scratch.take<int32_t>(num_pairs);
  std::fill_n(chosen, num_words, uint64_t{0});
  for (int64_t i = 0; i < num_pairs; ++i) {
    const int32_t id = batch_.expert_ids[i];
    HS_CHECK(id < num_experts, "expert {} of {}", id, num_experts);
    if (id < 0) continue;
    const uint64_t bit = uint64_t{1} << (id % 64);
    if ((chosen[id / 64] & bit) == 0) {
      chosen[id / 64] |= bit;
      next[id] = 0;
      ++num_active_;
    }
    ++next[id];
  }
  active_ = queue_.scratch.take<ActiveExpert>(num_active_);
  ActiveExpert* expert = active_;
  for (int64_t word = 0; word < num_words; ++word) {
    for (uint64_t left = chosen[word]; left != 0; left &= left - 1) {
      const auto id = static_cast<int32_t>(64 * word + std::countr_zero(left));
      *expert = {};
      expert->id = id;
      expert->slot_begin = num_slots_;
      expert->num_slots = next[id];
      ++expert;
      num_slots_ += std::exchange(next[id], static_cast<int32_t>(num_slots_));
    }
  }
  for (int64_t i = 0; i < num_pairs; ++i) {
    const int32_t id = batch_.expert_ids[i];
    slot_of_[i] = id >= 0 ? next[id]++ : -1;
    if (id < 0) continue;
    pair_of_[slot_of_[i]] = static_cast<int32_t>(i);
    token_of_[slot_of_[i]] = static_cast<int32_t>(i / batch_.top_k);
  }
}

// `previous`: the same projection of the expert before; null: there is none.
void MoePass::plan_projection(Projection& p, const PackedMatrix& weight, int64_t rows, int64_t cols,
                              const Projection* previous) {
  HS_CHECK(weight.rows == rows && weight.cols == cols, "an expert's [{}, {}] where [{}, {}] fits",
           weight.rows, weight.cols, rows, cols);
  p.weight = weight;
  p.key = input_key(weight, queue_.arithmetic);
  if (previous != nullptr && same_format(weight, previous->weight)) {
    p.format = previous->format;
    return;
  }
  TileFormat* format = formats_ + num_formats_++;
  *format = tile_format(weight, num_formats_ > 1 ? format - 1 : nullptr);
  p.format = format;
}

// Inputs in the model's order are prepared once per token; others once per slot, and so are those
// that AMX is to read, since its tiles want tokens one behind the other.
void MoePass::plan_token_input(Projection& p, const ActiveExpert& expert) {
  const int64_t amx_tokens =
      p.weight.code == CodeKind::kCodebook4 ? kAmxCodebookTokens : kAmxTokens;
  const bool for_amx =
      queue_.isa == Isa::kAmxInt8 && p.key.integer && expert.num_slots >= amx_tokens;
  p.input_per_slot = p.key.order != nullptr || for_amx;
  if (p.input_per_slot) {
    any_per_slot_ = true;
    p.input = take_activations(queue_.scratch, p.key, expert.num_slots, batch_.hidden, nullptr, 0);
    return;
  }
  int64_t i = 0;
  while (i < num_shared_ && !(shared_[i].key == p.key)) ++i;
  if (i == num_shared_) {
    shared_[num_shared_++] = {
        p.key, take_activations(queue_.scratch, p.key, input_copies_ * batch_.num_tokens,
                                batch_.hidden, batch_.x, batch_.hidden)};
  }
  p.input = shared_[i].values;
  p.input.rows = token_of_ + expert.slot_begin;
}

void MoePass::plan_expert(int64_t i) {
  const ExpertView& view = experts_[static_cast<size_t>(active_[i].id)];
  ActiveExpert& expert = active_[i];
  const ActiveExpert* previous = i > 0 ? &active_[i - 1] : nullptr;
  const int64_t width = view.gate.rows;
  plan_projection(expert.gate, view.gate, width, batch_.hidden,
                  previous != nullptr ? &previous->gate : nullptr);
  plan_projection(expert.up, view.up, width, batch_.hidden, &expert.gate);
  plan_projection(expert.down, view.down, batch_.hidden, width,
                  previous != nullptr ? &previous->down : nullptr);
  plan_token_input(expert.gate, expert);
  if (expert.up.key == expert.gate.key) {
    expert.up.input = expert.gate.input;
  } else {
    plan_token_input(expert.up, expert);
  }
  expert.down.input = take_activations(queue_.scratch, expert.down.key, expert.num_slots, width,
                                       act_ + expert.slot_begin * max_width_, max_width_);
  any_down_prepared_ |= !expert.down.key.is_plain();
  quantize_early_ = quantize_early_ && quantizes_early(expert.down);
  max_groups_ = std::max(max_groups_, view.down.num_groups());
}

// Its input's sub-blocks are rows of whole pairs of tiles of gate and up.
bool MoePass::quantizes_early(const Projection& down) const {
  const PackedMatrix& weight = down.weight;
  return down.key.integer && down.key.order == nullptr && weight.group % kSubBlock == 0 &&
         weight.cols % weight.group == 0;
}

// The first `num_experts`, whose tiles are known.
void MoePass::plan_deal(DealList& list, int64_t num_experts) {
  list.num_experts = num_experts;
  list.begun = queue_.scratch.take<DealList::Begun>(num_workers_);
  std::fill_n(list.begun, num_workers_, DealList::Begun{});
  for (int64_t i = 0; i < num_experts; ++i) {
    TileDeal& deal = active_[i].*list.deal;
    deal.cost_before = list.cost;
    list.cost += deal.cost * deal.num_tiles;
  }
}

void MoePass::plan_gate_up() {
  const auto cost = [](const Projection& p, int64_t num_slots) {
    return tile_cost(p.format->tile_bytes, p.format->cols, num_slots);
  };
  for (int64_t i = 0; i < num_active_; ++i) {
    ActiveExpert& expert = active_[i];
    TileDeal& deal = expert.gate_up_deal;
    deal.num_tiles = expert.gate.weight.num_tiles();
    deal.cost = cost(expert.gate, expert.num_slots) + cost(expert.up, expert.num_slots);
    expert.first_tile = num_gate_tiles_;
    num_gate_tiles_ += deal.num_tiles;
  }
  const int64_t wanted = ceil_div(num_gate_tiles_, num_workers_ * kChunks);
  for (int64_t i = 0; i < num_active_; ++i) {
    active_[i].gate_up_deal.max_chunk =
        std::clamp<int64_t>(kActRows / active_[i].num_slots, 1, wanted);
  }
  plan_deal(gate_up_list_, num_active_);
  if (quantize_early_) {
    pair_tiles_ = queue_.scratch.take<uint8_t>(num_gate_tiles_ / 2);
    std::fill(pair_tiles_, pair_tiles_ + num_gate_tiles_ / 2, uint8_t{0});
    group_sums_ = queue_.scratch.take<float>(num_workers_ * num_slots_ * max_groups_);
  }
}

// Outputs that are summed are summed tile by tile of all experts, so that it needs no further
// meeting: the first expert's deal stands for all.
void MoePass::plan_down() {
  const int64_t num_tiles = ceil_div(batch_.hidden, kTileRows);
  const int64_t rows = each_output_ ? num_active_ : std::min<int64_t>(1, num_active_);
  partial_slots_ = each_output_ ? 0 : num_slots_;
  for (int64_t i = 0; i < num_active_ && each_output_; ++i) {
    partial_slots_ = std::max(partial_slots_, active_[i].num_slots);
  }
  const int64_t wanted = std::max<int64_t>(1, ceil_div(rows * num_tiles, num_workers_ * kChunks));
  down_tiles_ = std::min({wanted, most_down_tiles(partial_slots_), num_tiles});
  for (int64_t i = 0; i < rows; ++i) {
    const ActiveExpert& expert = active_[i];
    const TileFormat& format = *expert.down.format;
    active_[i].down_deal = {.num_tiles = num_tiles,
                            .cost = tile_cost(format.tile_bytes, format.cols, expert.num_slots),
                            .max_chunk = down_tiles_};
  }
  plan_deal(down_list_, rows);
  partial_ = queue_.scratch.take<float>(num_workers_ * down_tiles_ * kTileRows * partial_slots_);
}

size_t MoePass::scratch_bytes(int64_t num_tokens, int64_t hidden, int64_t max_width, int32_t top_k,
                              int64_t num_experts, int num_threads) {
  const int64_t tokens = std::min(num_tokens, kMaxTokens);
  const int64_t slots = tokens * top_k;
  const int64_t active = std::min(slots, num_experts);
  const int64_t lists = 4 * (num_experts + 3 * slots) + ceil_div(num_experts, 64) * 8 + 20 * 64;
  const auto per_active = static_cast<int64_t>(sizeof(ActiveExpert) + 2 * sizeof(SharedInput) +
                                               kShapes * sizeof(TileFormat));
  const int64_t max_groups = ceil_div(max_width, kSubBlock);
  const int64_t few_slots = std::min(slots, kFewSlots);
  const int64_t tiles = ceil_div(hidden, kTileRows);
  const int64_t tile_bytes = slots * kTileRows * 4;  // of outputs
  size_t bytes = static_cast<size_t>(lists + active * (per_active + 3 * 4 * 64));
  const int64_t inputs = std::max(tokens, std::min(tokens, kOwnInputs) * num_threads);
  bytes += input_bytes_bound(2 * inputs, hidden);              // two groupings in the model's order
  bytes += 2 * input_bytes_bound(slots, hidden);               // gate and up in orders of their own
  bytes += input_bytes_bound(slots, max_width);                // down
  bytes += static_cast<size_t>(slots * max_width * 4);         // act
  bytes += static_cast<size_t>(few_slots * (max_groups + 1));  // pair_tiles_
  bytes += static_cast<size_t>(num_threads * few_slots * max_groups * 4);
  bytes += static_cast<size_t>(num_threads) * 2 * sizeof(DealList::Begun);
  bytes += static_cast<size_t>(num_threads *
                               std::min(std::max(kPartialBytes, tile_bytes), tile_bytes * tiles));
  return bytes;
}

}  // namespace hotset::cpu
