// SPDX-License-Identifier: Apache-2.0
// The experts of one layer:
//   y[t] = Σ_k w[t,k] · down_e( silu(gate_e · x[t]) ∘ (up_e · x[t]) ),  e = expert_ids[t,k]
// summed in the order of k with fp32 fma, starting from zero. What an expert adds for a token
// depends on that token and that expert only: not on the batch, the threads or the instruction set.
//
// Choices are sorted by expert, and each expert's weights are read once for all of its tokens. Rows
// are spread over all threads, with one meeting between gate·up and down. Few tokens are bound by
// memory: a thread that waits at the meeting prefetches its share of down.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/queue.h"
#include "quant/packed_matrix.h"

namespace hotset {

struct ExpertView {
  PackedMatrix gate;  // [width, hidden]
  PackedMatrix up;    // [width, hidden]
  PackedMatrix down;  // [hidden, width]
};

struct MoeBatch {
  const float* x = nullptr;  // [num_tokens, hidden]
  int64_t num_tokens = 0;
  int64_t hidden = 0;
  int32_t top_k = 0;
  // An id below 0 means "no expert here" (computed elsewhere), its weight is ignored. A shared
  // expert is one more expert with one more rank, its sigmoid gate the weight.
  const int32_t* expert_ids = nullptr;    // [num_tokens, top_k], below experts.size()
  const float* expert_weights = nullptr;  // [num_tokens, top_k]
};

// y: [num_tokens, hidden], overwritten. Experts that no token chose may have empty views; the
// others may differ in width, codes and grouping.
void moe_experts(cpu::Queue& queue, std::span<const ExpertView> experts, const MoeBatch& batch,
                 float* y);

// The unweighted outputs of the choices with an id ≥ 0: rows[t, k, :]. Other rows are left alone.
// rows: [num_tokens, top_k, hidden].
void moe_outputs(cpu::Queue& queue, std::span<const ExpertView> experts, const MoeBatch& batch,
                 float* rows);

// Scratch that either takes for batches up to this size with experts up to max_width wide.
[[nodiscard]] size_t moe_scratch_bytes(int64_t num_tokens, int64_t hidden, int64_t max_width,
                                       int32_t top_k, int64_t num_experts, int num_threads);

}  // namespace hotset
