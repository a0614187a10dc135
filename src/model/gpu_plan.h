// SPDX-License-Identifier: Apache-2.0
// What a GPU backend will take of GPU memory and of RAM, before a weight is read: the sizes of all
// its buffers, from shapes alone, and the plan that experts/placement.h makes of them. The backend
// allocates what stands here and nothing else.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"
#include "cuda/runtime.h"
#include "experts/placement.h"
#include "kernels/arithmetic.h"
#include "kernels/attention.h"
#include "kernels/cpu/isa.h"
#include "kvcache/page_pool.h"
#include "kvcache/state_pool.h"
#include "model/config.h"
#include "model/expert_slots.h"
#include "model/weights.h"
#include "model/workspace.h"

namespace hotset {

class RoutingProfile;

struct GpuBackendOptions {
  int device = 0;
  cpu::Isa isa = cpu::Isa::kScalar;
  Arithmetic arithmetic = Arithmetic::kFast;
  KvType kv_type = KvType::kBF16;
  int64_t gpu_memory_bytes = 0;  // 0: what is free, less a margin
  int64_t ram_bytes = 0;         // 0: what is available
  int64_t max_context = 0;
  int64_t prefill_chunk = 0;
  int64_t max_num_seqs = 0;
  int64_t fixed_num_seqs = 0;  // ModelOptions::fixed_num_seqs
  int64_t max_slots = -1;      // −1: as many as fit; for tests and measurements
  // Of a decode step's missed experts, the share that the GPU reads over PCIe; below 0: learnt.
  double fetch_share = -1;
  bool record_graphs = true;
  // What the slots are filled by at first; null: nothing. Read while the backend is made.
  const RoutingProfile* expert_profile = nullptr;
};

struct GpuSizes {
  WorkspaceShape rows = {};
  MixerScratch mixers = {};
  PagePoolShape pages = {};
  StatePoolShape states = {};
  SlotNeeds slots = {};
  int64_t num_moe_layers = 0;
  int64_t max_pieces = 0;  // of a step
  int64_t max_pages = 0;   // of a sequence
  int64_t max_rows = 0;    // sequences, or pieces of one
  int64_t max_logits = 0;

  int64_t weight_bytes = 0;
  int64_t scratch_bytes = 0;    // kernels'
  int64_t step_rows_bytes = 0;  // workspace.h
  int64_t input_bytes = 0;      // of a step; on the device, and as much pinned
  int64_t logits_bytes = 0;     // likewise
  int64_t experts_bytes = 0;    // gpu_experts.h
  [[nodiscard]] int64_t workspace_bytes() const {
    return scratch_bytes + step_rows_bytes + input_bytes + logits_bytes + experts_bytes +
           slots.table_bytes;
  }
};

// `host`: views of the loaded weights, or of their plan.
[[nodiscard]] GpuSizes gpu_sizes(const ModelConfig& config, const ModelWeights& host,
                                 const GpuBackendOptions& options, int num_sms);

// What was measured, or is assumed of a machine that is not there.
struct GpuMachine {
  int num_sms = 0;
  int64_t gpu_free_bytes = 0;
  int64_t ram_available_bytes = 0;
  MachineRates rates = {};
  bool is_imagined = false;  // flags describe it
};

// A model laid out in one form of its dense modules.
struct GpuForm {
  GpuSizes sizes = {};
  DenseForm dense = {};
  int64_t bank_bytes = 0;  // in RAM
};
[[nodiscard]] GpuForm gpu_form(const ModelConfig& config, const WeightPlan& plan,
                               int32_t dense_bits, const GpuBackendOptions& options, int num_sms);

struct GpuPlan {
  GpuSizes sizes;
  Placement placement;
  MachineRates rates;
  PlacementInput input;  // of the form that was chosen: what the placement follows from
};

// `forms`: one, or as stored and at 8 bits, of which placement.h takes the better one. A refusal
// says what is missing, with figures; it advises to take `on_request` where that is enough.
Result<GpuPlan> plan_gpu(const ModelConfig& config, std::span<const GpuForm> forms,
                         const GpuBackendOptions& options, const GpuMachine& machine,
                         const GpuForm* on_request = nullptr);

}  // namespace hotset
