// SPDX-License-Identifier: Apache-2.0
// Attention as work items: (block of tokens) × (KV head) × (range of positions). With enough blocks
// for all threads (prefill) an item walks its ranges itself. With few (decode) the ranges of an
// item are spread over the threads, some at a time (a wave), and merged in order; the arithmetic is
// the same.
#include "kernels/attention.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/parallel.h"

namespace hotset {
namespace cpu {

const AttentionKernels& attention_kernels(Isa isa) {
  return table_for(isa, attention_kernels_scalar(), attention_kernels_avx2(),
                   attention_kernels_avx512());
}

namespace {

constexpr int64_t kRowsPerBlock = 64;  // their q and acc (128 KiB at 256 dims) stay in L2

// How one call is cut. All sizes are in floats; everything lives in the caller's workspace.
struct Plan {
  int64_t group = 0;  // query heads per KV head
  int64_t padded_dim = 0;
  int64_t block_tokens = 0;
  int64_t num_units = 0;   // blocks × KV heads
  int64_t num_ranges = 0;  // of the last token
  int64_t wave = 0;        // ranges computed at a time; 0: each unit walks its own

  [[nodiscard]] int64_t rows() const { return block_tokens * group; }
  [[nodiscard]] int64_t softmax_floats() const { return rows() * (padded_dim + 2); }
  [[nodiscard]] int64_t q_floats() const { return rows() * padded_dim; }
  [[nodiscard]] int64_t scratch_floats() const {
    return attention_scratch_floats(rows(), padded_dim);
  }
  [[nodiscard]] int64_t workspace_floats(int64_t num_threads) const {
    if (wave == 0) return num_threads * (q_floats() + 2 * softmax_floats() + scratch_floats());
    return num_units * (q_floats() + (wave + 1) * softmax_floats()) +
           num_threads * scratch_floats();
  }
};

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

Plan plan_attention(const Queue& queue, const AttentionParams& params, const KvPages& kv) {
  HS_CHECK(kv.num_kv_heads > 0 && params.num_heads % kv.num_kv_heads == 0 && kv.page_tokens > 0 &&
               kv.head_dim > 0 && params.first_position >= 0,
           "attention of {} heads over {} KV heads of {}, pages of {}", params.num_heads,
           kv.num_kv_heads, kv.head_dim, kv.page_tokens);
  Plan plan;
  plan.group = params.num_heads / kv.num_kv_heads;
  plan.padded_dim = ceil_div(kv.head_dim, kAttentionPad) * kAttentionPad;
  plan.block_tokens = std::min(params.num_tokens, std::max<int64_t>(1, kRowsPerBlock / plan.group));
  plan.num_units = ceil_div(params.num_tokens, plan.block_tokens) * kv.num_kv_heads;
  plan.num_ranges = ceil_div(params.first_position + params.num_tokens, kAttentionRange);
  const int64_t wanted_items = 4 * queue.pool.num_threads();
  if (queue.pool.num_threads() > 1 && plan.num_units < wanted_items && plan.num_ranges > 1) {
    plan.wave = std::min(plan.num_ranges, ceil_div(wanted_items, plan.num_units));
  }
  return plan;
}

SoftmaxRows softmax_rows(float* at, const Plan& plan) {
  return {.max = at + plan.q_floats(), .sum = at + plan.q_floats() + plan.rows(), .acc = at};
}

// One call's data, and the pieces of work on it that both ways share.
struct Call {
  const AttentionKernels& kernels;
  const AttentionParams& params;
  const KvPages& kv;
  const Plan& plan;
  const float* q;
  float* out;

  [[nodiscard]] int64_t first_token(int64_t unit) const {
    return unit / kv.num_kv_heads * plan.block_tokens;
  }
  [[nodiscard]] int64_t num_tokens(int64_t unit) const {
    return std::min(plan.block_tokens, params.num_tokens - first_token(unit));
  }
  [[nodiscard]] int64_t end_position(int64_t unit) const {
    return params.first_position + first_token(unit) + num_tokens(unit);
  }
  [[nodiscard]] int64_t row_offset(int64_t unit, int64_t row) const {  // into q and out
    const int64_t token = first_token(unit) + row / plan.group;
    const int64_t head = unit % kv.num_kv_heads * plan.group + row % plan.group;
    return (token * params.num_heads + head) * kv.head_dim;
  }

  void gather_q(int64_t unit, float* rows) const {
    for (int64_t r = 0; r < num_tokens(unit) * plan.group; ++r, rows += plan.padded_dim) {
      const float* from = q + row_offset(unit, r);
      for (int64_t d = 0; d < kv.head_dim; ++d) rows[d] = from[d] * params.scale;
      std::fill(rows + kv.head_dim, rows + plan.padded_dim, 0.0f);
    }
  }
  void attend(int64_t unit, int64_t range, const float* rows, float* scratch,
              const SoftmaxRows& partial) const {
    const RangeTask task = {
        .num_rows = num_tokens(unit) * plan.group,
        .rows_per_token = plan.group,
        .padded_dim = plan.padded_dim,
        .kv_head = unit % kv.num_kv_heads,
        .token_position = params.first_position + first_token(unit),
        .begin = range * kAttentionRange,
        .end = std::min((range + 1) * kAttentionRange, end_position(unit)),
        .kv_row_bytes = kv.head_dim * kv_type_bytes(kv.type),
        .kv_plane_bytes = kv.plane_bytes(),
        .q = rows,
        .scratch = scratch,
    };
    kernels.attend_range(task, kv, partial);
  }
  void merge(int64_t unit, const SoftmaxRows& partial, const SoftmaxRows& total) const {
    kernels.merge(num_tokens(unit) * plan.group, plan.padded_dim, partial, total);
  }
  void clear(const SoftmaxRows& total) const {
    std::fill_n(total.acc, plan.q_floats(), 0.0f);
    std::fill_n(total.sum, plan.rows(), 0.0f);
    std::fill_n(total.max, plan.rows(), -INFINITY);
  }
  void finish(int64_t unit, const SoftmaxRows& total) const {
    for (int64_t r = 0; r < num_tokens(unit) * plan.group; ++r) {
      kernels.finish(kv.head_dim, total.sum[r], total.acc + r * plan.padded_dim,
                     out + row_offset(unit, r));
    }
  }
};

void attend_by_unit(Queue& queue, const Call& call, float* workspace) {
  const Plan& plan = call.plan;
  const int64_t per_worker = plan.workspace_floats(1);
  for_items(queue, plan.num_units, [&](int64_t item, int worker) {
    // The last tokens see the most positions: longest items first.
    const int64_t unit = plan.num_units - 1 - item;
    float* rows = workspace + worker * per_worker;
    const SoftmaxRows total = softmax_rows(rows + plan.q_floats(), plan);
    const SoftmaxRows partial = softmax_rows(total.acc + plan.softmax_floats(), plan);
    float* scratch = partial.acc + plan.softmax_floats();
    call.gather_q(unit, rows);
    call.clear(total);
    const int64_t num_ranges = ceil_div(call.end_position(unit), kAttentionRange);
    for (int64_t range = 0; range < num_ranges; ++range) {
      call.attend(unit, range, rows, scratch, partial);
      call.merge(unit, partial, total);
    }
    call.finish(unit, total);
  });
}

void attend_by_range(Queue& queue, const Call& call, float* workspace) {
  const Plan& plan = call.plan;
  const int64_t per_unit = plan.q_floats() + (plan.wave + 1) * plan.softmax_floats();
  float* scratch = workspace + plan.num_units * per_unit;
  const auto total_of = [&](int64_t unit) {
    return softmax_rows(workspace + unit * per_unit + plan.q_floats(), plan);
  };
  const auto partial_of = [&](int64_t unit, int64_t slot) {
    return softmax_rows(total_of(unit).acc + (slot + 1) * plan.softmax_floats(), plan);
  };
  for_items(queue, plan.num_units, [&](int64_t unit, int) {
    call.gather_q(unit, workspace + unit * per_unit);
    call.clear(total_of(unit));
  });
  for (int64_t first = 0; first < plan.num_ranges; first += plan.wave) {
    const int64_t width = std::min(plan.wave, plan.num_ranges - first);
    for_items(queue, plan.num_units * width, [&](int64_t item, int worker) {
      const int64_t unit = item % plan.num_units, slot = item / plan.num_units;
      if ((first + slot) * kAttentionRange >= call.end_position(unit)) return;
      call.attend(unit, first + slot, workspace + unit * per_unit,
                  scratch + worker * plan.scratch_floats(), partial_of(unit, slot));
    });
    for_items(queue, plan.num_units, [&](int64_t unit, int) {
      for (int64_t slot = 0; slot < width; ++slot) {
        if ((first + slot) * kAttentionRange >= call.end_position(unit)) break;
        call.merge(unit, partial_of(unit, slot), total_of(unit));
      }
      if (first + width >= plan.num_ranges) call.finish(unit, total_of(unit));
    });
  }
}

}  // namespace
}  // namespace cpu

int64_t attention_workspace_floats(const cpu::Queue& queue, const AttentionParams& params,
                                   const KvPages& kv) {
  // Fewer tokens or positions can be cut into more waves than this call, so the bound is taken over
  // both ways and the largest wave.
  cpu::Plan plan = cpu::plan_attention(queue, params, kv);
  const int64_t threads = queue.pool.num_threads();
  plan.wave = 0;
  const int64_t by_unit = plan.workspace_floats(threads);
  const int64_t most_units = std::min(plan.num_units, 4 * threads);
  const int64_t most_slots = 4 * threads + 2 * most_units;
  const int64_t by_range = most_units * plan.q_floats() + most_slots * plan.softmax_floats() +
                           threads * plan.scratch_floats();
  return std::max(by_unit, by_range);
}

void attention(cpu::Queue& queue, const AttentionParams& params, const float* q, const KvPages& kv,
               float* out, float* workspace) {
  if (params.num_tokens <= 0) return;
  const cpu::Plan plan = cpu::plan_attention(queue, params, kv);
  const cpu::Call call{cpu::attention_kernels(queue.isa), params, kv, plan, q, out};
  if (plan.wave == 0) {
    cpu::attend_by_unit(queue, call, workspace);
  } else {
    cpu::attend_by_range(queue, call, workspace);
  }
}

}  // namespace hotset
