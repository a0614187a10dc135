// SPDX-License-Identifier: Apache-2.0
// Sequence by sequence, one small operation after the other.
#include "kernels/gated_attention.h"

#include <cmath>

#include "base/checked_math.h"
#include "kernels/cpu/queue.h"
#include "kernels/elementwise.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"

namespace hotset {
namespace {

KvPages layer_pages(const GatedAttention& layer, const SequenceRows& rows, std::byte** pages) {
  const int64_t count = ceil_div(rows.first_position + rows.num_tokens, layer.page_tokens);
  for (int64_t i = 0; i < count; ++i) pages[i] = rows.pages[i] + layer.layer_offset;
  return {.type = layer.kv_type,
          .pages = pages,
          .page_tokens = layer.page_tokens,
          .num_kv_heads = layer.num_kv_heads,
          .head_dim = layer.head_dim};
}

void norm_and_rope(cpu::Queue& queue, const GatedAttention& layer, int64_t num_tokens,
                   int64_t num_heads, const float* norm, const float* cos_sin, float* x) {
  rms_norm(queue, {.num_rows = num_tokens * num_heads, .cols = layer.head_dim, .eps = layer.eps}, x,
           norm, x);
  rope(queue,
       {.num_tokens = num_tokens,
        .num_heads = num_heads,
        .head_dim = layer.head_dim,
        .rotary_dims = layer.rotary_dims},
       cos_sin, x);
}

}  // namespace

void gated_attention(cpu::Queue& queue, const GatedAttention& layer, const StepBatch& batch,
                     const float* query_gate, float* key, const float* value,
                     const GatedAttentionBuffers& buffers, float* out) {
  const int64_t q_dim = layer.num_heads * layer.head_dim;
  const int64_t kv_dim = layer.num_kv_heads * layer.head_dim;
  for (int32_t s = 0; s < batch.num_sequences; ++s) {
    const SequenceRows& rows = batch.sequences[s];
    const int64_t begin = rows.token_begin, t = rows.num_tokens;
    const KvPages kv = layer_pages(layer, rows, buffers.layer_pages);
    const float* cos_sin = buffers.cos_sin + begin * layer.rotary_dims;
    float* query = out + begin * q_dim;
    float* gate = buffers.gate + begin * q_dim;
    float* k = key + begin * kv_dim;

    split_query_gate(queue,
                     {.num_tokens = t, .num_heads = layer.num_heads, .head_dim = layer.head_dim},
                     query_gate + begin * 2 * q_dim, query, gate);
    norm_and_rope(queue, layer, t, layer.num_heads, layer.q_norm, cos_sin, query);
    norm_and_rope(queue, layer, t, layer.num_kv_heads, layer.k_norm, cos_sin, k);
    kv_append(queue, kv, rows.first_position, t, k, value + begin * kv_dim);
    const AttentionParams params{
        .num_heads = layer.num_heads,
        .first_position = rows.first_position,
        .num_tokens = t,
        .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(layer.head_dim)))};
    attention(queue, params, query, kv, query, buffers.scratch);
    sigmoid_gate(queue, t * q_dim, gate, query);
  }
}

}  // namespace hotset
