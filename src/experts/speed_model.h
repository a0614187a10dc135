// SPDX-License-Identifier: Apache-2.0
// How fast a step of decoding can be, from bytes and measured rates: the model that the memory
// plan, the split of misses and the cache simulator share.
//
//   X = num_layers · top_k · expert_bytes          bytes of experts a step touches
//   gpu  = (dense + state and KV) / B_gpu + num_kernels · t_node
//   sync = num_layers · t_handshake · (1 - h^top_k)      a layer of hits needs no CPU
//   hot  = h·X / B_gpu                                   h: share of choices that are resident
//   miss = (1-h)·X / B_miss,  B_miss = B_cpu | B_pcie | min(B_host, B_cpu' + B_pcie')  (split)
//   step = gpu + sync + max(hot, miss)
// A mark ' means measured while the other runs. Insertions (I bytes a step) are copied beside this:
// they lengthen miss only where RAM can't deliver both, (miss bytes + I) / B_host, or PCIe, I /
// B_pcie.
#pragma once

#include <cstdint>

namespace hotset {

// Calibrated on the machine at start. Bytes and floating-point operations per second; seconds.
struct MachineRates {
  double gpu_bytes_per_s = 0;              // device memory, as our kernels reach it
  double cpu_bytes_per_s = 0;              // experts computed from RAM, alone
  double cpu_overlapped_bytes_per_s = 0;   // … while PCIe copies
  double pcie_bytes_per_s = 0;             // pinned RAM to GPU, alone
  double pcie_overlapped_bytes_per_s = 0;  // … while the CPU computes
  double host_bytes_per_s = 0;             // all readers of RAM together
  double cpu_flops = 0;                    // expert products with many tokens
  double gpu_flops = 0;
  double handshake_s = 0;  // GPU → CPU → GPU, once a layer that has misses
  double fetch_s = 0;      // to start reading over PCIe, once a layer that does
  double node_s = 0;       // a kernel in the graph
};

// What one step of one sequence reads.
struct DecodeLoad {
  int32_t num_layers = 0;
  int32_t num_experts = 0;  // of a layer
  int32_t top_k = 0;
  int64_t expert_bytes = 0;
  double dense_bytes = 0;     // all weights that are no routed experts
  double state_kv_bytes = 0;  // recurrent states, read and written, and the KV cache
  int32_t num_kernels = 0;

  [[nodiscard]] double touched_bytes() const {
    return static_cast<double>(num_layers) * top_k * static_cast<double>(expert_bytes);
  }
  [[nodiscard]] int64_t total_experts() const { return int64_t{num_layers} * num_experts; }
};

enum class MissPath : uint8_t { kCpu, kPcie, kSplit };

struct DecodeEstimate {
  double gpu_s = 0;
  double sync_s = 0;
  double hot_s = 0;
  double miss_s = 0;

  [[nodiscard]] double step_s() const { return gpu_s + sync_s + (hot_s > miss_s ? hot_s : miss_s); }
  [[nodiscard]] double tok_s() const { return 1.0 / step_s(); }
};

// hit_rate in 0…1; insertion_bytes a step. Rates that the path needs are above 0.
[[nodiscard]] DecodeEstimate estimate_decode(const MachineRates& rates, const DecodeLoad& load,
                                             double hit_rate, double insertion_bytes,
                                             MissPath path);
[[nodiscard]] double expected_decode_tok_s(const MachineRates& rates, const DecodeLoad& load,
                                           double hit_rate);

// The hit rate to expect of a recency cache that holds this share (0…1) of all experts, before a
// trace of the checkpoint says better: replays published for a sibling with the same 512 experts,
// top-10 (6 / 12 / 18 / 24 / 33 % → 0.435 / 0.62 / 0.72 / 0.789 / 0.85), straight lines between.
[[nodiscard]] double expected_hit_rate(double cached_share);

}  // namespace hotset
