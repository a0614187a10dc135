// SPDX-License-Identifier: Apache-2.0
// Experts on the GPU: which kernels, on what. See expert_table.h for what comes out.
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/moe_launch.h"
#include "kernels/cuda/shape_check.cuh"

namespace hotset::cuda {
namespace {

constexpr int64_t kPassTokens = 2048;  // of many; bounds what lies between gate·up and down
// Of many tokens: down makes, and the join adds up, so many columns at a time that the rows between
// them mostly stay in the L2 cache of a large card.
constexpr int64_t kJoinedBytes = int64_t{48} << 20;
constexpr int64_t kLeastJoined = 128;

int64_t aligned(int64_t bytes) {
  return (bytes + 255) / 256 * 256;
}

int64_t max_width(const ExpertTable& experts) {
  int64_t width = 0;
  for (int i = 0; i < experts.num_groups; ++i) {
    width = std::max(width, experts.groups[i].encoding.gate.rows);
  }
  return width;
}

int32_t num_experts(const ExpertTable& experts) {
  int32_t end = 0;
  for (int i = 0; i < experts.num_groups; ++i) {
    end = std::max(end, experts.groups[i].first_expert + experts.groups[i].num_experts);
  }
  return end;
}

bool has_fitting_shapes(const ExpertGroup& group, int64_t hidden) {
  const ExpertView& e = group.encoding;
  return e.gate.cols == hidden && e.up.cols == hidden && e.down.rows == hidden &&
         e.up.rows == e.gate.rows && e.down.cols == e.gate.rows;
}

// Sub-blocks of a group may be rounded 32 rows at a time where they begin at multiples of 32.
bool has_whole_sub_blocks(const ExpertJob& job) {
  const TileLayout& f = job.down;
  return f.integer && f.order == nullptr && job.orders == nullptr &&
         (f.group % kSubBlock == 0 || f.num_groups == 1);
}

// The work of one call on one batch.
class ExpertPass {
 public:
  ExpertPass(Queue& queue, const ExpertTable& experts, const MoeBatch& batch)
      : queue_(queue),
        experts_(experts),
        batch_(batch),
        num_pairs_(batch.num_tokens * batch.top_k) {
    args_.addresses = experts.addresses;
    args_.choice_addresses = experts.choice_addresses;
    args_.ids = batch.expert_ids;
    args_.top_k = batch.top_k;
    args_.num_tokens = static_cast<int32_t>(batch.num_tokens);
    args_.hidden = static_cast<int32_t>(batch.hidden);
    args_.max_width = static_cast<int32_t>(max_width(experts));
    args_.x = batch.x;
    for (int i = 0; i < experts.num_groups; ++i) args_.jobs[args_.num_jobs++] = expert_job(i);
  }

  // Into rows, or joined into y.
  void run_few(float* rows, const float* elsewhere, float* y);
  void run_many(float* rows);
  void run_many_joined(const float* elsewhere, float* y);

 private:
  [[nodiscard]] ExpertJob expert_job(int i) const {
    const ExpertGroup& group = experts_.groups[i];
    ExpertJob job;
    job.gate = tile_layout(group.encoding.gate, queue_.arithmetic);
    job.up = tile_layout(group.encoding.up, queue_.arithmetic);
    job.down = tile_layout(group.encoding.down, queue_.arithmetic);
    job.first_expert = group.first_expert;
    job.end_expert = group.first_expert + group.num_experts;
    job.orders = group.orders;
    job.gate_per_slot = job.gate.order != nullptr || job.orders != nullptr;
    job.up_per_slot = job.up.order != nullptr || job.orders != nullptr;
    return job;
  }
  // The rows of `args` become slots: choices, or sorted ones.
  void over_slots(RoundArgs& args) const {
    args.num_rows = num_pairs_;
    args.expert_of = sorted_.expert_of != nullptr ? sorted_.expert_of : batch_.expert_ids;
    args.source = sorted_.token_of;
    args.rows_per_x = batch_.top_k;
  }
  void round_inputs(bool may_leave);
  void round_input(const TileLayout& f, const ExpertJob& job, int which, RoundedInput& input,
                   RoundArgs& by_token, RoundArgs& by_slot);
  bool take_act();
  void run_items();
  void round_act(const ExpertJob& job, const float* up);
  void sort();
  [[nodiscard]] GemmArgs gemm_args(const ExpertJob& job, int index, int which, float* y) const;
  void gate_up(const ExpertJob& job, int index);
  void act_of_many();
  void down_of_many(int64_t first_row, int64_t num_rows, float* rows);

  Queue& queue_;
  const ExpertTable& experts_;
  const MoeBatch& batch_;
  int64_t num_pairs_;
  ExpertArgs args_;
  SortedChoices sorted_;
  float* up_ = nullptr;  // [pairs, max_width]
};

void ExpertPass::round_input(const TileLayout& f, const ExpertJob& job, int which,
                             RoundedInput& input, RoundArgs& by_token, RoundArgs& by_slot) {
  if (!f.integer) return;
  const bool per_slot = which == 0 ? job.gate_per_slot : job.up_per_slot;
  RoundArgs& args = per_slot ? by_slot : by_token;
  for (int i = 0; i < args.num_jobs && !per_slot; ++i) {
    if (args.jobs[i].group == f.group) {
      input = args.jobs[i].to;
      return;
    }
  }
  input = take_rounded(queue_, per_slot ? num_pairs_ : batch_.num_tokens, f.num_subs());
  RoundJob& round = args.jobs[args.num_jobs++];
  round = round_job(f, input);
  round.orders = job.orders;
  round.which = which;
  round.first_expert = job.first_expert;
  round.end_expert = job.end_expert;
}

// `may_leave` it to the blocks that multiply, where there is one form.
void ExpertPass::round_inputs(bool may_leave) {
  RoundArgs by_token;
  by_token.x = batch_.x;
  by_token.ldx = batch_.hidden;
  by_token.num_rows = batch_.num_tokens;
  RoundArgs by_slot = by_token;
  over_slots(by_slot);
  static_assert(2 * kMaxExpertGroups <= kMaxOutputs);
  for (int i = 0; i < args_.num_jobs; ++i) {
    ExpertJob& job = args_.jobs[i];
    round_input(job.gate, job, 0, job.gate_in, by_token, by_slot);
    round_input(job.up, job, 1, job.up_in, by_token, by_slot);
  }
  if (!queue_.status) return;
  if (may_leave && by_token.num_jobs == 1 && by_slot.num_jobs == 0) {
    args_.cut = cut_of(by_token.jobs[0]);
    args_.rounds = rounded_row_bytes(args_.cut) <= kMaxRoundedRow;
  }
  if (!args_.rounds) round_rows(queue_, by_token);
  round_rows(queue_, by_slot);
}

// What gate·up leaves for down, as floats (true) and rounded.
bool ExpertPass::take_act() {
  int64_t subs = 0;
  bool floats = false;
  for (int i = 0; i < args_.num_jobs; ++i) {
    const ExpertJob& job = args_.jobs[i];
    if (job.down.integer) subs = std::max<int64_t>(subs, job.down.num_subs());
    floats |= !job.rounds_act;
  }
  if (subs > 0) args_.act_in = take_rounded(queue_, num_pairs_, subs);
  if (floats) args_.act = queue_.take<float>(num_pairs_ * args_.max_width);
  return floats;
}

// From act, or from silu(act) ∘ up.
void ExpertPass::round_act(const ExpertJob& job, const float* up) {
  RoundArgs args;
  args.x = args_.act;
  args.up = up;
  args.ldx = args_.max_width;
  over_slots(args);
  args.source = nullptr;
  args.rows_per_x = 1;
  RoundJob& round = args.jobs[args.num_jobs++];
  round = round_job(job.down, args_.act_in);
  round.orders = job.orders;
  round.which = 2;
  round.first_expert = job.first_expert;
  round.end_expert = job.end_expert;
  round_rows(queue_, args);
}

// What run_few() has begun, item by item.
void ExpertPass::run_items() {
  int32_t subs = 0;
  for (int i = 0; i < args_.num_jobs; ++i) {
    subs = std::max({subs, args_.jobs[i].gate.num_subs(), args_.jobs[i].up.num_subs()});
  }
  args_.x_in = take_rounded(queue_, batch_.num_tokens, subs);
  args_.items = queue_.take<ExpertItem>(num_pairs_);
  args_.num_items = queue_.take<int32_t>(1);
  take_act();
  const bool joins = args_.rows == nullptr;
  if (joins) args_.rows = queue_.take<float>(num_pairs_ * batch_.hidden);
  if (!queue_.status) return;
  item_products(queue_, args_);
  if (joins) join_columns(queue_, join_args(batch_, args_.rows, args_.elsewhere, args_.y));
}

void ExpertPass::run_few(float* rows, const float* elsewhere, float* y) {
  const ScratchScope scope(queue_);
  int64_t down_bytes = 0;
  for (int i = 0; i < args_.num_jobs; ++i) {
    ExpertJob& job = args_.jobs[i];
    job.rounds_act = has_whole_sub_blocks(job);
    down_bytes = std::max(down_bytes, job.down.num_tiles() * job.down.tile_bytes);
  }
  args_.prefetches_down = experts_.choice_addresses == nullptr &&
                          4 * num_pairs_ * down_bytes <= queue_.runtime.info().l2_bytes;
  args_.rows = rows;
  args_.weights = batch_.expert_weights;
  args_.elsewhere = elsewhere;
  args_.y = y;
  const bool one_token = batch_.num_tokens == 1;
  if (!one_token && can_take_items(queue_, args_)) return run_items();
  const bool staged = one_token && can_stage(queue_, args_);
  if (!staged) round_inputs(true);
  take_act();
  if (!queue_.status) return;
  if (staged) {
    staged_products(queue_, args_);
    return;
  }
  gate_up_products(queue_, args_);
  for (int i = 0; i < args_.num_jobs; ++i) {
    const ExpertJob& job = args_.jobs[i];
    if (job.down.integer && !job.rounds_act) round_act(job, nullptr);
  }
  down_products(queue_, args_);
}

int64_t max_chunks(int64_t num_pairs, int32_t experts) {
  return std::min<int64_t>(num_pairs, experts) + num_pairs / kChunkTokens;
}

bool same_products(const TileLayout& a, const TileLayout& b) {
  return a.code == b.code && a.scale == b.scale && a.has_zeros == b.has_zeros && a.zero == b.zero &&
         a.group == b.group && a.rows == b.rows && a.cols == b.cols;
}

// One kernel for gate, up, SwiGLU and rounding.
bool has_joint_gate_up(const ExpertJob& job) {
  return has_whole_groups(job.gate, job.gate_in) && same_products(job.gate, job.up) &&
         job.gate_in.q == job.up_in.q && has_whole_sub_blocks(job);
}

void ExpertPass::sort() {
  const int32_t experts = num_experts(experts_);
  sorted_.token_of = queue_.take<int32_t>(num_pairs_);
  sorted_.pair_of = queue_.take<int32_t>(num_pairs_);
  sorted_.expert_of = queue_.take<int32_t>(num_pairs_);
  sorted_.chunks = queue_.take<ExpertChunk>(max_chunks(num_pairs_, experts));
  sorted_.chunk_ranges = queue_.take<int32_t>(2 * kMaxExpertGroups);
  SortArgs args;
  args.counts = queue_.take<int32_t>(experts);
  if (!queue_.status) return;
  args.to = sorted_;
  args.addresses = experts_.addresses;
  args.ids = batch_.expert_ids;
  args.num_pairs = static_cast<int32_t>(num_pairs_);
  args.top_k = batch_.top_k;
  args.num_experts = experts;
  args.num_groups = args_.num_jobs;
  for (int i = 0; i < args_.num_jobs; ++i) {
    args.first_expert[i] = args_.jobs[i].first_expert;
    args.end_expert[i] = args_.jobs[i].end_expert;
  }
  sort_choices(queue_, args);
}

// which: 0 gate, 1 up, 2 down. gate and up read x and write slots, down reads slots and writes the
// choices' own rows.
GemmArgs ExpertPass::gemm_args(const ExpertJob& job, int index, int which, float* y) const {
  const TileLayout& f = which == 0 ? job.gate : which == 1 ? job.up : job.down;
  const bool per_slot =
      which == 2 || (f.integer && (which == 0 ? job.gate_per_slot : job.up_per_slot));
  GemmArgs args;
  args.weight = f;
  args.input = which == 0 ? job.gate_in : which == 1 ? job.up_in : args_.act_in;
  args.x = which == 2 ? args_.act : batch_.x;
  args.ldx = which == 2 ? args_.max_width : batch_.hidden;
  args.y = y;
  args.ldy = which == 2 ? batch_.hidden : args_.max_width;
  args.addresses = experts_.addresses;
  args.which = which;
  args.chunks = sorted_.chunks;
  args.chunk_range = sorted_.chunk_ranges + 2 * index;
  args.max_chunks = max_chunks(num_pairs_, job.end_expert - job.first_expert);
  args.row_of = per_slot ? nullptr : sorted_.token_of;
  args.to_row = which == 2 ? sorted_.pair_of : nullptr;
  args.orders = job.orders;
  args.first_expert = job.first_expert;
  return args;
}

void ExpertPass::gate_up(const ExpertJob& job, int index) {
  gate_up_gemm(queue_, {.gate = gemm_args(job, index, 0, nullptr),
                        .up_codebook = job.up.codebook,
                        .act = args_.act_in,
                        .act_subs = job.down.num_subs()});
}

// All that comes before down.
void ExpertPass::act_of_many() {
  sort();
  round_inputs(false);
  for (int i = 0; i < args_.num_jobs; ++i) {
    args_.jobs[i].rounds_act = has_joint_gate_up(args_.jobs[i]);
  }
  if (take_act()) up_ = queue_.take<float>(num_pairs_ * args_.max_width);
  if (!queue_.status) return;
  for (int i = 0; i < args_.num_jobs; ++i) {
    const ExpertJob& job = args_.jobs[i];
    if (job.rounds_act) {
      gate_up(job, i);
      continue;
    }
    gemm(queue_, gemm_args(job, i, 0, args_.act));
    gemm(queue_, gemm_args(job, i, 1, up_));
    if (job.down.integer) {
      round_act(job, up_);
    } else {
      swiglu_rows(queue_, {.gate = args_.act,
                           .up = up_,
                           .stride = args_.max_width,
                           .width = job.gate.rows,
                           .num_rows = num_pairs_,
                           .expert_of = sorted_.expert_of,
                           .first_expert = job.first_expert,
                           .end_expert = job.end_expert});
    }
  }
}

// rows: [pairs, num_rows]. first_row is a tile's.
void ExpertPass::down_of_many(int64_t first_row, int64_t num_rows, float* rows) {
  for (int i = 0; i < args_.num_jobs; ++i) {
    GemmArgs args = gemm_args(args_.jobs[i], i, 2, rows);
    args.weight.rows = static_cast<int32_t>(num_rows);
    args.first_byte = first_row / kTileRows * args.weight.tile_bytes;
    args.ldy = num_rows;
    gemm(queue_, args);
  }
}

void ExpertPass::run_many(float* rows) {
  const ScratchScope scope(queue_);
  act_of_many();
  down_of_many(0, batch_.hidden, rows);
}

int64_t joined_columns(int64_t num_pairs, int64_t hidden) {
  const int64_t columns = kJoinedBytes / (4 * num_pairs) / kLeastJoined * kLeastJoined;
  return std::min(hidden, std::max(kLeastJoined, columns));
}

void ExpertPass::run_many_joined(const float* elsewhere, float* y) {
  const ScratchScope scope(queue_);
  act_of_many();
  const int64_t columns = joined_columns(num_pairs_, batch_.hidden);
  auto* rows = queue_.take<float>(num_pairs_ * columns);
  if (!queue_.status) return;
  JoinArgs join = join_args(batch_, rows, elsewhere, y);
  for (int64_t first = 0; first < batch_.hidden; first += columns) {
    join.width = join.ld_rows = std::min(columns, batch_.hidden - first);
    join.elsewhere = elsewhere == nullptr ? nullptr : elsewhere + first;
    join.y = y + first;
    down_of_many(first, join.width, rows);
    join_columns(queue_, join);
  }
}

MoeBatch part_of(const MoeBatch& batch, int64_t first, int64_t most) {
  MoeBatch part = batch;
  part.num_tokens = std::min(most, batch.num_tokens - first);
  part.x += first * batch.hidden;
  part.expert_ids += first * batch.top_k;
  part.expert_weights += first * batch.top_k;
  return part;
}

bool is_known_table(Queue& queue, const ExpertTable& experts, const MoeBatch& batch) {
  bool known = experts.num_groups <= kMaxExpertGroups && num_experts(experts) <= kMaxExperts;
  for (int i = 0; i < experts.num_groups && known; ++i) {
    known = has_fitting_shapes(experts.groups[i], batch.hidden);
  }
  return is_known_shape(queue, known, "moe");
}

}  // namespace

void moe_outputs(Queue& queue, const ExpertTable& experts, const MoeBatch& batch, float* rows) {
  if (batch.num_tokens == 0 || batch.top_k == 0 || experts.num_groups == 0) return;
  if (!queue.status || !is_known_table(queue, experts, batch)) return;
  if (batch.num_tokens <= kDecodeTokens) {
    ExpertPass(queue, experts, batch).run_few(rows, nullptr, nullptr);
    return;
  }
  for (int64_t first = 0; first < batch.num_tokens; first += kPassTokens) {
    const MoeBatch part = part_of(batch, first, kPassTokens);
    ExpertPass(queue, experts, part).run_many(rows + first * batch.top_k * batch.hidden);
  }
}

void moe_experts(Queue& queue, const ExpertTable& experts, const MoeBatch& batch,
                 const float* elsewhere, float* y) {
  if (batch.num_tokens == 0 || !queue.status) return;
  if (!is_known_table(queue, experts, batch)) return;
  if (experts.num_groups == 0 || batch.top_k == 0) {
    moe_join(queue, batch, nullptr, elsewhere, y);
    return;
  }
  if (batch.num_tokens <= kDecodeTokens) {
    ExpertPass(queue, experts, batch).run_few(nullptr, elsewhere, y);
    return;
  }
  for (int64_t first = 0; first < batch.num_tokens; first += kPassTokens) {
    const MoeBatch part = part_of(batch, first, kPassTokens);
    const float* from =
        elsewhere == nullptr ? nullptr : elsewhere + first * batch.top_k * batch.hidden;
    ExpertPass(queue, experts, part).run_many_joined(from, y + first * batch.hidden);
  }
}

int64_t moe_outputs_scratch_bytes(const ExpertTable& experts, int64_t num_tokens, int64_t hidden,
                                  int32_t top_k) {
  const int64_t tokens = std::min(num_tokens, kPassTokens), pairs = tokens * top_k;
  const int64_t width = max_width(experts);
  int64_t bytes = 3 * aligned(4 * pairs) + aligned(int64_t{4} * num_experts(experts)) + 256;
  bytes +=
      aligned(static_cast<int64_t>(sizeof(ExpertChunk)) * max_chunks(pairs, num_experts(experts)));
  int64_t act_subs = 0;
  for (int i = 0; i < experts.num_groups; ++i) {
    const ExpertGroup& group = experts.groups[i];
    for (const PackedMatrix* m : {&group.encoding.gate, &group.encoding.up}) {
      const TileLayout f = tile_layout(*m, Arithmetic::kFast);
      const bool per_slot = m->input_order != nullptr || group.orders != nullptr;
      if (f.integer) bytes += rounded_bytes(per_slot ? pairs : tokens, f.num_subs());
    }
    const TileLayout down = tile_layout(group.encoding.down, Arithmetic::kFast);
    act_subs = std::max<int64_t>(act_subs, down.num_subs());
  }
  const int64_t few = std::min(num_tokens, kDecodeTokens) * top_k;
  bytes += aligned(static_cast<int64_t>(sizeof(ExpertItem)) * few);
  return bytes + rounded_bytes(pairs, act_subs) + 2 * aligned(4 * pairs * width);
}

int64_t moe_scratch_bytes(const ExpertTable& experts, int64_t num_tokens, int64_t hidden,
                          int32_t top_k) {
  const int64_t tokens = std::min(num_tokens, kPassTokens);
  const int64_t pairs = tokens * top_k;
  int64_t rows = aligned(4 * std::min(num_tokens, kDecodeTokens) * top_k * hidden);
  if (num_tokens > kDecodeTokens) {
    rows = std::max(rows, aligned(4 * std::min(pairs * hidden,
                                               std::max(kJoinedBytes / 4, pairs * kLeastJoined))));
  }
  return rows + moe_outputs_scratch_bytes(experts, num_tokens, hidden, top_k);
}

}  // namespace hotset::cuda
