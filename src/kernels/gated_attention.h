// SPDX-License-Identifier: Apache-2.0
// Gated full attention between its projections, for all sequences of a step:
//
//   q, gate = split(query_gate);  q, k ← rope(rms_norm(q)), rope(rms_norm(k));  pages ← k, v
//   out = attention(q, pages) ∘ σ(gate)
//
// attention.h, rms_norm.h and rope.h have the formulas.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attention.h"
#include "kernels/step_batch.h"

namespace hotset {

namespace cuda {
struct Queue;
}

struct GatedAttention {
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t rotary_dims = 0;
  float eps = 1e-6f;              // rms_norm_eps
  const float* q_norm = nullptr;  // [head_dim], zero-centred
  const float* k_norm = nullptr;
  KvType kv_type = KvType::kBF16;
  int64_t page_tokens = 0;
  int64_t layer_offset = 0;  // bytes from the start of a page to this layer's K
};

// Room for a step's intermediate results, [num_tokens, …] each.
struct GatedAttentionBuffers {
  const float* cos_sin = nullptr;     // rotary_dims; from rope_angles
  float* gate = nullptr;              // num_heads · head_dim
  float* scratch = nullptr;           // attention scratch of the backend
  std::byte** layer_pages = nullptr;  // CPU only: [pages of the longest sequence]
};

// query_gate [T, num_heads, 2·head_dim], key and value [T, num_kv_heads, head_dim] as the
// projections give them; key is overwritten. out [T, num_heads, head_dim], not aliased.
void gated_attention(cpu::Queue& queue, const GatedAttention& layer, const StepBatch& batch,
                     const float* query_gate, float* key, const float* value,
                     const GatedAttentionBuffers& buffers, float* out);
void gated_attention(cuda::Queue& queue, const GatedAttention& layer, const StepBatch& batch,
                     const float* query_gate, float* key, const float* value,
                     const GatedAttentionBuffers& buffers, float* out);

// Floats of `scratch` the CUDA overload needs for steps up to these sizes.
[[nodiscard]] int64_t gated_attention_scratch_floats(const cuda::Queue& queue,
                                                     const GatedAttention& layer,
                                                     int64_t max_tokens, int64_t max_positions);
[[nodiscard]] int64_t gated_attention_scratch_floats(int num_sms, const GatedAttention& layer,
                                                     int64_t max_tokens);  // of any GPU like that

}  // namespace hotset
