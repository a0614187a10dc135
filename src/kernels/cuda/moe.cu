// SPDX-License-Identifier: Apache-2.0
// Experts on the GPU: which kernels, on what. See expert_table.h for what comes out.
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/moe_launch.h"
#include "kernels/cuda/shape_check.cuh"

namespace hotset::cuda {
namespace {

constexpr int64_t kPassTokens = 1024;  // of many; bounds what lies between gate·up and down

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
  void round_inputs(RoundedSums sums, bool may_leave);
  void round_input(const TileLayout& f, const ExpertJob& job, int which, RoundedInput& input,
                   RoundArgs& by_token, RoundArgs& by_slot);
  void take_act(bool integer_rows);
  void round_act(const ExpertJob& job, RoundedSums sums, const float* up);
  void sort();
  void product(const ExpertJob& job, int index, int which, float* y);

  Queue& queue_;
  const ExpertTable& experts_;
  const MoeBatch& batch_;
  int64_t num_pairs_;
  ExpertArgs args_;
  SortedChoices sorted_;
  int32_t chunk_tokens_ = 0;
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
void ExpertPass::round_inputs(RoundedSums sums, bool may_leave) {
  RoundArgs by_token;
  by_token.sums = sums;
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

// What gate·up leaves for down, as floats and rounded.
void ExpertPass::take_act(bool integer_rows) {
  int64_t subs = 0;
  bool floats = !integer_rows;
  for (int i = 0; i < args_.num_jobs; ++i) {
    const ExpertJob& job = args_.jobs[i];
    if (job.down.integer) subs = std::max<int64_t>(subs, job.down.num_subs());
    floats |= !job.rounds_act;
  }
  if (subs > 0) args_.act_in = take_rounded(queue_, num_pairs_, subs);
  if (floats) args_.act = queue_.take<float>(num_pairs_ * args_.max_width);
}

// From act, or from silu(act) ∘ up.
void ExpertPass::round_act(const ExpertJob& job, RoundedSums sums, const float* up) {
  RoundArgs args;
  args.sums = sums;
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

void ExpertPass::run_few(float* rows, const float* elsewhere, float* y) {
  const ScratchScope scope(queue_);
  for (int i = 0; i < args_.num_jobs; ++i) {
    args_.jobs[i].rounds_act = has_whole_sub_blocks(args_.jobs[i]);
  }
  round_inputs(RoundedSums::kOwn, true);
  take_act(true);
  if (!queue_.status) return;
  int64_t down_bytes = 0;
  for (int i = 0; i < args_.num_jobs; ++i) {
    const TileLayout& f = args_.jobs[i].down;
    down_bytes = std::max(down_bytes, f.num_tiles() * f.tile_bytes);
  }
  args_.prefetches_down = 4 * num_pairs_ * down_bytes <= queue_.runtime.info().l2_bytes;
  gate_up_products(queue_, args_);
  for (int i = 0; i < args_.num_jobs; ++i) {
    const ExpertJob& job = args_.jobs[i];
    if (job.down.integer && !job.rounds_act) round_act(job, RoundedSums::kOwn, nullptr);
  }
  args_.rows = rows;
  args_.weights = batch_.expert_weights;
  args_.elsewhere = elsewhere;
  args_.y = y;
  down_products(queue_, args_);
}

// Tokens of a chunk: what an expert has on average decides how many a block takes.
int32_t chunk_tokens(int64_t num_pairs, int32_t experts) {
  return num_pairs <= int64_t{24} * experts ? 32 : 64;
}
int64_t max_chunks(int64_t num_pairs, int32_t experts, int32_t tokens) {
  return std::min<int64_t>(num_pairs, experts) + num_pairs / tokens;
}

void ExpertPass::sort() {
  const int32_t experts = num_experts(experts_);
  chunk_tokens_ = chunk_tokens(num_pairs_, experts);
  sorted_.token_of = queue_.take<int32_t>(num_pairs_);
  sorted_.pair_of = queue_.take<int32_t>(num_pairs_);
  sorted_.expert_of = queue_.take<int32_t>(num_pairs_);
  sorted_.chunks = queue_.take<ExpertChunk>(max_chunks(num_pairs_, experts, chunk_tokens_));
  sorted_.chunk_ranges = queue_.take<int32_t>(2 * kMaxExpertGroups);
  if (!queue_.status) return;
  SortArgs args;
  args.to = sorted_;
  args.addresses = experts_.addresses;
  args.ids = batch_.expert_ids;
  args.num_pairs = static_cast<int32_t>(num_pairs_);
  args.top_k = batch_.top_k;
  args.num_experts = experts;
  args.chunk_tokens = chunk_tokens_;
  args.num_groups = args_.num_jobs;
  for (int i = 0; i < args_.num_jobs; ++i) {
    args.first_expert[i] = args_.jobs[i].first_expert;
    args.end_expert[i] = args_.jobs[i].end_expert;
  }
  sort_choices(queue_, args);
}

// which: 0 gate, 1 up, 2 down. gate and up read x and write slots, down reads slots and writes the
// choices' own rows.
void ExpertPass::product(const ExpertJob& job, int index, int which, float* y) {
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
  args.max_chunks = max_chunks(num_pairs_, job.end_expert - job.first_expert, chunk_tokens_);
  args.row_of = per_slot ? nullptr : sorted_.token_of;
  args.to_row = which == 2 ? sorted_.pair_of : nullptr;
  args.orders = job.orders;
  args.first_expert = job.first_expert;
  args.chunk_tokens = chunk_tokens_;
  gemm(queue_, args);
}

void ExpertPass::run_many(float* rows) {
  const ScratchScope scope(queue_);
  sort();
  round_inputs(RoundedSums::kRunning, false);
  take_act(false);
  up_ = queue_.take<float>(num_pairs_ * args_.max_width);
  if (!queue_.status) return;
  for (int i = 0; i < args_.num_jobs; ++i) {
    const ExpertJob& job = args_.jobs[i];
    product(job, i, 0, args_.act);
    product(job, i, 1, up_);
    if (job.down.integer) {
      round_act(job, RoundedSums::kRunning, up_);
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
    product(job, i, 2, rows);
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
  if (batch.num_tokens <= kDecodeTokens && experts.num_groups > 0 && batch.top_k > 0) {
    ExpertPass(queue, experts, batch).run_few(nullptr, elsewhere, y);
    return;
  }
  for (int64_t first = 0; first < batch.num_tokens; first += kPassTokens) {
    const ScratchScope scope(queue);
    const MoeBatch part = part_of(batch, first, kPassTokens);
    const int64_t row = batch.top_k * batch.hidden;
    auto* rows = queue.take<float>(part.num_tokens * row);
    if (!queue.status) return;
    moe_outputs(queue, experts, part, rows);
    moe_join(queue, part, rows, elsewhere == nullptr ? nullptr : elsewhere + first * row,
             y + first * batch.hidden);
  }
}

int64_t moe_outputs_scratch_bytes(const ExpertTable& experts, int64_t num_tokens, int64_t hidden,
                                  int32_t top_k) {
  const int64_t tokens = std::min(num_tokens, kPassTokens), pairs = tokens * top_k;
  const int64_t width = max_width(experts);
  int64_t bytes = 3 * aligned(4 * pairs) + 256;
  bytes += aligned(static_cast<int64_t>(sizeof(ExpertChunk)) *
                   (std::min<int64_t>(pairs, num_experts(experts)) + pairs / 32));
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
  return bytes + rounded_bytes(pairs, act_subs) + 2 * aligned(4 * pairs * width);
}

int64_t moe_scratch_bytes(const ExpertTable& experts, int64_t num_tokens, int64_t hidden,
                          int32_t top_k) {
  const int64_t tokens = std::min(num_tokens, kPassTokens);
  const int64_t rows = num_tokens > kDecodeTokens ? aligned(4 * tokens * top_k * hidden) : 0;
  return rows + moe_outputs_scratch_bytes(experts, num_tokens, hidden, top_k);
}

}  // namespace hotset::cuda
