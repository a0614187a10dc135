// SPDX-License-Identifier: Apache-2.0
// Who computes the experts of a prompt's layer that are not on the GPU: the CPU from RAM where they
// lie, or the GPU, reading them over PCIe. Both read the same RAM, so the rates that count are
// those measured while both run (B'); when only one has work its own rate counts (B). Decode steps
// are too short for it: fetch_share_search.h.
//
//   one expert of t tokens   CPU: max(bytes / B_cpu, t · flops / R_cpu)     PCIe: bytes / B_pcie
//   f of m experts fetched   T(f) = max(hot, t_handshake + Σ CPU, t_fetch + Σ PCIe, Σ t·flops /
//   R_gpu)
//
// The split is the f with the least T(f), and of equal ones the least f: PCIe left idle is free for
// insertions. The CPU's cost grows with an expert's tokens, PCIe's does not, so the GPU takes the
// experts with most tokens. With fractions of experts the optimum is f/m = B_pcie' / (B_pcie' +
// B_cpu').
#pragma once

#include <cstdint>
#include <span>

#include "experts/speed_model.h"

namespace hotset {

struct ExpertCost {
  int64_t bytes = 0;
  double flops_per_token = 0;  // 6 · hidden_size · moe_intermediate_size
};

struct MissSplit {
  int32_t num_fetched = 0;  // the first of the sorted misses; the rest is the CPU's
  double cpu_s = 0;
  double fetch_s = 0;
  double layer_s = 0;  // the longer of the two and of the hits
};

// tokens: of each missed expert of a layer, most first (checked). hot_s: what the GPU's hits take.
// O(misses), no allocation.
[[nodiscard]] MissSplit split_misses(const MachineRates& rates, const ExpertCost& cost,
                                     std::span<const int32_t> tokens, double hot_s);

struct PrefillLoad {
  int32_t num_layers = 0;
  int32_t num_experts = 0;
  int32_t top_k = 0;
  ExpertCost expert;
  double cached_share = 0;     // of experts that are resident
  double flops_per_token = 0;  // of the whole model, for the GPU's own bound
};

struct PrefillSplit {
  double cpu_share = 0;     // of the experts that are touched and not resident
  double stream_share = 0;  // the others cross PCIe
  double seconds = 0;       // of the pass

  [[nodiscard]] double tok_s(int64_t num_tokens) const {
    return static_cast<double>(num_tokens) / seconds;
  }
};

// A pass over num_tokens >= 1 prompt tokens, tokens spread evenly over the experts:
//   touched share f = 1 - (1 - top_k/num_experts)^N,  tokens of a touched expert t = N·top_k /
//   (E·f) CPU share x = b / (a + b) with a, b one expert's time on the CPU and over PCIe, or 0, or
//   1 seconds = max(num_layers · layer time, N · flops_per_token / R_gpu)
[[nodiscard]] PrefillSplit split_prefill(const MachineRates& rates, const PrefillLoad& load,
                                         int64_t num_tokens);

}  // namespace hotset
