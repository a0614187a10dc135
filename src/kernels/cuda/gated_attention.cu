// SPDX-License-Identifier: Apache-2.0
// Which kernels a step takes (gated_attention_parts.cuh), and how much scratch.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cuda/gated_attention_parts.cuh"
#include "kernels/cuda/shape_check.cuh"
#include "kernels/gated_attention.h"

namespace hotset {
namespace cuda {
namespace {

AttentionTask task_of(const GatedAttention& layer) {
  const int value_bytes = layer.kv_type == KvType::kF32 ? 4 : 2;
  constexpr double kLog2E = 1.4426950408889634;
  return {.heads = static_cast<int>(layer.num_heads),
          .kv_heads = static_cast<int>(layer.num_kv_heads),
          .group = static_cast<int>(layer.num_heads / layer.num_kv_heads),
          .dim = static_cast<int>(layer.head_dim),
          .rotary = static_cast<int>(layer.rotary_dims),
          .page_tokens = static_cast<int>(layer.page_tokens),
          .eps = layer.eps,
          .scale = static_cast<float>(kLog2E / std::sqrt(static_cast<double>(layer.head_dim))),
          .type = layer.kv_type,
          .value_bytes = value_bytes,
          .layer_offset = layer.layer_offset,
          .plane_bytes = layer.num_kv_heads * layer.page_tokens * layer.head_dim * value_bytes,
          .q_norm = layer.q_norm,
          .k_norm = layer.k_norm};
}

bool is_known(const GatedAttention& layer) {
  return layer.num_kv_heads > 0 && layer.num_heads % layer.num_kv_heads == 0 &&
         layer.head_dim > 0 && layer.head_dim <= kMaxAttentionDim && layer.rotary_dims % 2 == 0 &&
         layer.rotary_dims <= layer.head_dim && layer.page_tokens > 0;
}

// Rows times splits of any step up to these sizes, 32 rows for two blocks a multiprocessor or
// kPrefillRows for one: a step with few rows is cut in more splits. Rows that are cut as if alone
// have all of them each.
int64_t most_partials(const AttentionTask& task, int64_t max_tokens, int num_sms) {
  const bool by_tensor = fits_attention_tensor(task);
  const StepBatch one{.num_sequences = 1,
                      .num_tokens = 1,
                      .max_tokens = 1,
                      .max_positions = std::numeric_limits<int32_t>::max()};
  const int64_t splits =
      by_tensor ? tensor_splits(task, one, num_sms) : simple_splits(task, one, num_sms);
  const int64_t cut = std::max(static_cast<int64_t>(num_sms) * kPrefillRows,
                               std::min(max_tokens, kMostAlone) * task.heads * splits);
  return by_tensor ? cut : std::max(cut, max_tokens * task.heads);
}

}  // namespace
}  // namespace cuda

int64_t gated_attention_scratch_floats(const cuda::Queue& queue, const GatedAttention& layer,
                                       int64_t max_tokens, int64_t /*max_positions*/) {
  return gated_attention_scratch_floats(queue.num_sms(), layer, max_tokens);
}

int64_t gated_attention_scratch_floats(int num_sms, const GatedAttention& layer,
                                       int64_t max_tokens) {
  if (!cuda::is_known(layer)) return 0;
  const cuda::AttentionTask task = cuda::task_of(layer);
  return cuda::most_partials(task, max_tokens, num_sms) * (layer.head_dim + 2);
}

void gated_attention(cuda::Queue& queue, const GatedAttention& layer, const StepBatch& batch,
                     const float* query_gate, float* key, const float* value,
                     const GatedAttentionBuffers& buffers, float* out) {
  if (!cuda::is_known_shape(queue, cuda::is_known(layer), "gated_attention")) return;
  if (batch.num_sequences <= 0 || batch.max_tokens <= 0) return;
  cuda::AttentionTask task = cuda::task_of(layer);
  task.cos_sin = buffers.cos_sin;
  task.sequences = batch.sequences;
  task.query_gate = query_gate;
  task.key = key;
  task.value = value;
  task.out = out;
  const bool by_tensor = cuda::fits_attention_tensor(task);
  task.splits = by_tensor ? cuda::tensor_splits(task, batch, queue.num_sms())
                          : cuda::simple_splits(task, batch, queue.num_sms());
  const int64_t partials = static_cast<int64_t>(batch.num_tokens) * task.heads * task.splits;
  task.weights = reinterpret_cast<float2*>(buffers.scratch);
  task.sums = buffers.scratch + 2 * partials;
  if (!by_tensor || !cuda::fits_fused_rows(task, batch)) cuda::attention_rows(queue, task, batch);
  if (by_tensor) {
    cuda::attention_tensor(queue, task, batch);
  } else {
    cuda::attention_simple(queue, task, batch);
  }
  if (!by_tensor || task.splits > 1) cuda::attention_merge(queue, task, batch);
}

}  // namespace hotset
