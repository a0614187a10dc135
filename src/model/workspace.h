// SPDX-License-Identifier: Apache-2.0
// The buffers of one forward step, sized once for the largest step, its pieces and the longest
// context.
// Everything is fp32 [num_tokens, …], row-major; a member's comment gives the row.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "kernels/attention.h"
#include "memory/huge_buffer.h"
#include "model/config.h"

namespace hotset {

struct WorkspaceShape {
  int64_t max_chunk = 0;    // rows of a piece (model/forward.h)
  int64_t max_step = 0;     // rows of a step; at least max_chunk
  int64_t max_context = 0;  // positions of one sequence
  int64_t page_tokens = 0;
  KvType kv_type = KvType::kBF16;
  bool mtp = false;
};

struct Workspace {
  // Rows of the whole step: these three. All others: rows of a piece; the
  // router's may hold as many that it predicts.
  float* residual = nullptr;  // hidden_size
  float* hidden = nullptr;    // hidden_size; the normed residual that a mixer or MLP reads
  float* cos_sin = nullptr;   // rotary_dim

  float* update = nullptr;  // hidden_size; what a mixer or MLP adds

  float* mtp_input = nullptr;  // 2·hidden_size; only with the MTP head

  // Linear attention
  float* qkvz = nullptr;       // qkvz_dim
  float* ba = nullptr;         // 2·linear_num_value_heads
  float* mixed = nullptr;      // conv_dim
  float* z = nullptr;          // value_dim
  float* delta_out = nullptr;  // value_dim
  float* beta = nullptr;       // linear_num_value_heads
  float* decay = nullptr;      // linear_num_value_heads; g, the log of the decay
  float* delta_scratch = nullptr;

  // Full attention
  float* query_gate = nullptr;  // num_attention_heads · 2·head_dim
  float* query = nullptr;       // num_attention_heads · head_dim
  float* gate = nullptr;        // num_attention_heads · head_dim
  float* key = nullptr;         // num_key_value_heads · head_dim
  float* value = nullptr;       // num_key_value_heads · head_dim
  float* attention_scratch = nullptr;

  // MoE
  float* router_logits = nullptr;   // num_experts
  float* shared_logit = nullptr;    // 1
  float* expert_weights = nullptr;  // num_experts_per_tok + 1, the shared expert last
  int32_t* expert_ids = nullptr;    // num_experts_per_tok + 1

  int32_t* dense_ids = nullptr;    // 1; all 0: a dense MLP is one expert that is always chosen
  float* dense_weights = nullptr;  // 1; all 1

  std::vector<std::byte*> layer_pages;  // CPU: page pointers of one layer
  WorkspaceShape shape;
  HugeBuffer memory;  // CPU: what the pointers point into
};

// What the mixers want beside the rows above; differs between backends.
struct MixerScratch {
  int64_t delta_floats = 0;
  int64_t attention_floats = 0;
};

[[nodiscard]] int64_t workspace_bytes(const ModelConfig& config, const WorkspaceShape& shape,
                                      const MixerScratch& scratch);
// The same, laid out from `base`, which has workspace_bytes() bytes, 256-byte aligned. Nothing is
// written: dense_ids and dense_weights are the caller's to fill.
[[nodiscard]] Workspace place_workspace(const ModelConfig& config, const WorkspaceShape& shape,
                                        const MixerScratch& scratch, std::byte* base);

// In host memory, ready to use.
Result<Workspace> create_workspace(const ModelConfig& config, const WorkspaceShape& shape,
                                   const cpu::Queue& queue);

}  // namespace hotset
