// SPDX-License-Identifier: Apache-2.0
// Prefill of a short prompt, whose time is that of reading missing experts: the CPU computes some
// of them from RAM while others cross PCIe to the GPU, and both end at the same time.
//
//   queue     router → x, ids to the host → products of residents → (filled) products of staged →
//   engine    waits for ids; divides the missed experts; starts copies; computes the CPU's
//   PCIe      staged experts of this layer, then some of the next: it is not idle while the GPU
//             goes through the next mixer
//   rows      most of the CPU's outputs to the device while it computes the last ones
//   queue     → (rows) sum in the router's order
//
// Who computes an expert is decided after its layer was routed, by rates that are measured layer
// by layer (experts/measured_rates.h). With integer products the result does not depend on it.
//
// A long prompt is bound by the GPU's products, hides PCIe behind them and is not split.
//
// One thread (the engine's) uses this. Failures are noted in the queue.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cuda/device_memory.h"
#include "experts/measured_rates.h"
#include "kernels/cpu/queue.h"
#include "kernels/cuda/queue.h"
#include "model/config.h"
#include "model/expert_slots.h"
#include "model/expert_stream.h"
#include "model/weights.h"

namespace hotset {

struct SplitPrefillCounts {
  int64_t computed_bytes = 0;  // of experts, by the CPU
  double cpu_seconds = 0;      // for them
  double wait_seconds = 0;     // for the GPU's routers
};

class SplitPrefill {
 public:
  static constexpr int64_t kMaxTokens = 2048;

  // The arguments outlive it. `max_tokens`: of a piece of a step.
  // Pinned memory that create() takes.
  [[nodiscard]] static int64_t host_bytes(const ModelConfig& config, int64_t max_tokens);
  static Result<std::unique_ptr<SplitPrefill>> create(cuda::Queue& queue, cpu::Queue& cpu_queue,
                                                      const ModelConfig& config,
                                                      const ModelWeights& host, ExpertSlots& slots,
                                                      ExpertStream& stream, int64_t max_tokens);
  ~SplitPrefill();
  SplitPrefill(const SplitPrefill&) = delete;
  SplitPrefill& operator=(const SplitPrefill&) = delete;

  [[nodiscard]] int64_t max_tokens() const { return max_tokens_; }
  // What a step of so many tokens wants of each staging area.
  [[nodiscard]] int64_t num_staged(int64_t num_tokens) const;

  // Of a layer's missed experts, the share that crosses PCIe; below 0: as measured rates say.
  void fix_fetch_share(double share) { fetch_share_ = share; }

  // y ← the layer's experts. rows: [num_tokens, top_k, hidden], device.
  void run(int64_t layer, const MoeBatch& batch, float* rows, float* y);

  // After a failure: nothing of a step is under way.
  Status recover();
  [[nodiscard]] const SplitPrefillCounts& counts() const { return counts_; }

 private:
  // One missed expert of the layer.
  struct Miss {
    int32_t expert = 0;
    int32_t tokens = 0;
  };

  SplitPrefill(cuda::Queue& queue, cpu::Queue& cpu_queue, const ModelConfig& config,
               const ModelWeights& host, ExpertSlots& slots, ExpertStream& stream,
               int64_t max_tokens);
  Status allocate();
  void send_to_host(const MoeBatch& batch);
  [[nodiscard]] bool await_routing();
  void list_misses(int64_t layer, const MoeBatch& batch);
  [[nodiscard]] int64_t num_fetched() const;  // of the misses, from the first on
  void stream_first(int64_t layer, int64_t count);
  void stage_ahead(int64_t layer);
  void multiply_staged(int64_t layer, const MoeBatch& batch, float* rows);
  void group_choices(std::span<const Miss> on_cpu, const MoeBatch& batch);
  void compute(int64_t layer, std::span<const Miss> on_cpu, const MoeBatch& batch, float* rows);
  void learn_copies();

  cuda::Queue& queue_;
  cpu::Queue& cpu_queue_;
  const ModelConfig& config_;
  const ModelWeights& host_;
  ExpertSlots& slots_;
  ExpertStream& stream_;
  const int64_t max_tokens_;
  const int32_t top_k_;  // the shared expert included
  const ExpertCost cost_;
  MeasuredRates rates_;

  cuda::Queue rows_queue_;  // a stream of its own for the CPU's rows
  cuda::Event routed_;
  cuda::Event rows_there_;
  cuda::DeviceMemory x_;      // pinned [max_tokens, hidden]
  cuda::DeviceMemory ids_;    // pinned [max_tokens, top_k]: as the router chose
  cuda::DeviceMemory rows_;   // pinned [max_tokens, top_k, hidden]: the CPU's
  cuda::DeviceMemory pairs_;  // pinned [max_tokens · top_k]: the CPU's choices, group after group

  std::vector<int32_t> tokens_of_;           // [num_experts + 1]
  std::vector<Miss> misses_;                 // of the layer, most tokens first
  std::vector<int32_t> miss_tokens_;         // of these
  std::vector<int32_t> group_of_;            // [num_experts + 1]: −1, or the CPU's group
  std::array<int64_t, 3> group_begin_ = {};  // in pairs_, and the end of the last
  std::vector<int32_t> cpu_ids_;             // [max_tokens, top_k]: a group's, else −1
  std::vector<Miss> ahead_;
  int64_t copied_bytes_ = 0;  // on the stream's clock
  double fetch_share_ = -1;
  double gap_s_ = 0;          // from the end of the CPU's work to the next layer's routing
  double computed_at_s_ = 0;  // 0: not in this step
  bool all_touched_ = false;  // most missing experts have tokens
  SplitPrefillCounts counts_;
};

}  // namespace hotset
