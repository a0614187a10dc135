// SPDX-License-Identifier: Apache-2.0
// The experts of one layer as CUDA kernels see them: where each one lies at this moment. A slot
// cache changes entries between steps; a recorded graph follows, since it reads the table.
#pragma once

#include <cstdint>

#include "kernels/moe.h"

namespace hotset::cuda {

struct Queue;

// In device memory, one per expert. All matrices of one kind (gate, up, down) have the shapes of
// ExpertTable, so an expert is its three addresses. Null: not in device memory.
struct ExpertAddress {
  const std::byte* gate = nullptr;
  const std::byte* up = nullptr;
  const std::byte* down = nullptr;
};

// Experts that share one encoding: routed experts are one group, a shared expert stored otherwise
// is another. `data` of the three matrices is unused; their codebook and input_order, in device
// memory, hold for all experts of the group unless `orders` gives them one by one.
struct ExpertGroup {
  ExpertView encoding;
  int32_t first_expert = 0;
  int32_t num_experts = 0;
  // [num_experts][3] device pointers (gate, up, down), for GPTQ with desc_act; null: none have any.
  const int32_t* const* orders = nullptr;
};

struct ExpertTable {
  const ExpertAddress* addresses = nullptr;  // device, [num_experts of all groups]
  // Device [num_tokens, top_k], for decode (up to 16 tokens): where each choice finds its
  // expert, in place of `addresses`. May be pinned host memory, which kernels read over PCIe.
  const ExpertAddress* choice_addresses = nullptr;
  const ExpertGroup* groups = nullptr;       // host
  int32_t num_groups = 0;
};

// The unweighted outputs of the choices whose expert is in device memory: rows[t, k, :] where
// ids[t, k] ≥ 0 and the table has an address. Other rows are left alone.
// rows: [num_tokens, top_k, hidden], device. Pointers of `batch` are device memory.
void moe_outputs(Queue& queue, const ExpertTable& experts, const MoeBatch& batch, float* rows);

//   y[t] = Σ_k w[t,k] · (ids[t,k] ≥ 0 ? rows[t, k, :] : elsewhere[t, k, :])
//
// in the order of k, by fma, from zero: the sum has the same bits whoever computed its parts.
// elsewhere: [num_tokens, top_k, hidden] in device or mapped host memory; where it is null, choices
// with ids below 0 count nothing.
void moe_join(Queue& queue, const MoeBatch& batch, const float* rows, const float* elsewhere,
              float* y);

// Both: every choice with an id ≥ 0 is in device memory.
void moe_experts(Queue& queue, const ExpertTable& experts, const MoeBatch& batch,
                 const float* elsewhere, float* y);

// Scratch that moe_experts takes for a batch up to this size, and moe_outputs alone.
[[nodiscard]] int64_t moe_scratch_bytes(const ExpertTable& experts, int64_t num_tokens,
                                        int64_t hidden, int32_t top_k);
[[nodiscard]] int64_t moe_outputs_scratch_bytes(const ExpertTable& experts, int64_t num_tokens,
                                                int64_t hidden, int32_t top_k);
// Scratch that matmul takes for up to this size.
[[nodiscard]] int64_t matmul_scratch_bytes(int64_t num_tokens, int64_t max_cols);

}  // namespace hotset::cuda
