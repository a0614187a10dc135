// SPDX-License-Identifier: Apache-2.0
// Experts for 2 … 16 tokens where can_stage() allows: a kernel lists who is wanted by whom, an item
// an expert and up to eight choices of it, and rounds the tokens; gate·up and down then take item
// by item, so that an expert's weights are read once for all of them. Blocks go on from item to
// item, the next one's tiles on their way while this one's are joined.
#pragma once

#include "kernels/cuda/moe_staged.cuh"

namespace hotset::cuda {

// An item of the list, by threads 0 … 3. Past the L1 cache: see pointer_at().
static_assert(sizeof(ExpertItem) == 4 * sizeof(int4));
__device__ inline void load_item(const ExpertItem* from, ExpertItem& to) {
  const auto thread = threadIdx.x;
  if (thread < 4) {
    reinterpret_cast<int4*>(&to)[thread] = __ldcg(reinterpret_cast<const int4*>(from) + thread);
  }
}

// Rounded rows, `row_of(0)` … `row_of(count − 1)`, to shared memory where `stride` sub-blocks lie
// from one to the next: an odd number, against bank conflicts. By all threads of a block.
template <typename RowOf>
__device__ inline void copy_rows(const RoundedInput& from, RowOf row_of, int count, int stride,
                                 int8_t* q, float* meta) {
  const int subs = from.sub_stride;
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < 2 * count * subs; i += kStagedThreads) {
    const int row = i / (2 * subs), at = i % (2 * subs);
    reinterpret_cast<uint4*>(q + row * stride * kSubBlock)[at] =
        __ldcg(reinterpret_cast<const uint4*>(from.q_row(row_of(row))) + at);
  }
  for (int i = static_cast<int>(threadIdx.x); i < count * subs; i += kStagedThreads) {
    const int row = i / subs, at = i % subs;
    reinterpret_cast<float2*>(meta + row * stride * 2)[at] =
        __ldcg(reinterpret_cast<const float2*>(from.meta_row(row_of(row))) + at);
  }
}

// ── Of the host ─────────────────────────────────────────────────────────────────────────────────

// How many items are taken at once by `strips` blocks each.
inline unsigned items_at_once(const Queue& queue, const ExpertArgs& args, int64_t shared_bytes,
                              int64_t strips) {
  const int64_t most = queue.runtime.info().max_shared_bytes;
  const int64_t per_sm = shared_bytes <= most / 2 - kSharedReserve ? 2 : 1;
  const int64_t room = std::max<int64_t>(1, per_sm * queue.num_sms() / strips);
  return static_cast<unsigned>(std::min<int64_t>(room, int64_t{args.num_tokens} * args.top_k));
}

[[nodiscard]] bool fits_items_gate_up(const ExpertArgs& args, int64_t most);
[[nodiscard]] bool fits_items_down(const ExpertArgs& args, int64_t most);
void items_gate_up(Queue& queue, const ExpertArgs& args, int subs);
void items_down(Queue& queue, const ExpertArgs& args, int subs);

}  // namespace hotset::cuda
