// SPDX-License-Identifier: Apache-2.0
#include "model/forward.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.h"
#include "kernels/attention.h"
#include "kernels/delta_net.h"
#include "kernels/delta_rule.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/matmul.h"
#include "kernels/moe.h"
#include "kernels/rms_norm.h"
#include "kernels/router.h"

namespace hotset {
namespace {

// One step: the context, and what this call adds to it.
struct Step {
  ForwardContext& context;
  SequenceCache& sequence;
  int64_t num_tokens;
  int64_t first_position;

  [[nodiscard]] const ModelConfig& config() const { return context.config; }
  [[nodiscard]] Workspace& buffers() const { return context.workspace; }
  [[nodiscard]] cpu::Queue& queue() const { return context.queue; }
};

void project(const Step& step, const PackedMatrix& weight, const float* x, float* y) {
  const std::array outputs = {MatmulOutput{&weight, y, weight.rows}};
  matmul(step.queue(), outputs, x, weight.cols, step.num_tokens);
}

RmsNormParams norm_params(const Step& step, int64_t rows_per_token, int64_t cols) {
  return {.num_rows = step.num_tokens * rows_per_token,
          .cols = cols,
          .eps = static_cast<float>(step.config().rms_norm_eps)};
}

// buffers().hidden → buffers().update
void linear_attention(const Step& step, const LinearAttentionWeights& w, int64_t state_layer) {
  const ModelConfig& c = step.config();
  Workspace& b = step.buffers();
  const int64_t t = step.num_tokens;
  const DeltaNetShape shape{.num_key_heads = c.linear_num_key_heads,
                            .num_value_heads = c.linear_num_value_heads,
                            .key_head_dim = c.linear_key_head_dim,
                            .value_head_dim = c.linear_value_head_dim};
  StatePool& states = step.context.states;
  const int32_t slot = step.sequence.state_slot();

  const std::array projections = {MatmulOutput{&w.in_proj_qkvz, b.qkvz, c.qkvz_dim()},
                                  MatmulOutput{&w.in_proj_ba, b.ba, 2 * c.linear_num_value_heads}};
  matmul(step.queue(), projections, b.hidden, c.hidden_size, t);
  split_qkvz(step.queue(), shape, t, b.qkvz, b.mixed, b.z);
  conv1d(step.queue(),
         {.num_tokens = t, .channels = c.conv_dim(), .kernel = c.linear_conv_kernel_dim}, b.mixed,
         w.conv1d.data(), states.conv_state(slot, state_layer), b.mixed);
  normalize_qk(step.queue(), shape, t, b.mixed);
  delta_gates(step.queue(), shape, t, b.ba, w.a_log.data(), w.dt_bias.data(), b.beta, b.decay);
  delta_rule(step.queue(), {.shape = shape, .num_tokens = t}, b.mixed, b.beta, b.decay,
             states.delta_state(slot, state_layer), b.delta_out, b.delta_scratch);
  gated_rms_norm(step.queue(), norm_params(step, c.linear_num_value_heads, c.linear_value_head_dim),
                 b.delta_out, b.z, w.norm.data(), b.delta_out);
  project(step, w.out_proj, b.delta_out, b.update);
}

KvPages layer_pages(const Step& step, int64_t kv_layer) {
  PagePool& pool = step.context.pages;
  std::vector<std::byte*>& pointers = step.buffers().kv_pages;
  const std::vector<int32_t>& pages = step.sequence.pages();
  for (size_t i = 0; i < pages.size(); ++i) pointers[i] = pool.layer_data(pages[i], kv_layer);
  return {.type = step.buffers().shape.kv_type,
          .pages = pointers.data(),
          .page_tokens = pool.shape().page_tokens,
          .num_kv_heads = step.config().num_key_value_heads,
          .head_dim = step.config().head_dim};
}

// buffers().hidden → buffers().update
void full_attention(const Step& step, const FullAttentionWeights& w, int64_t kv_layer) {
  const ModelConfig& c = step.config();
  Workspace& b = step.buffers();
  const int64_t t = step.num_tokens;
  const int64_t heads = c.num_attention_heads;
  const int64_t kv_heads = c.num_key_value_heads;
  const KvPages kv = layer_pages(step, kv_layer);

  const std::array projections = {MatmulOutput{&w.q_proj, b.query_gate, 2 * heads * c.head_dim},
                                  MatmulOutput{&w.k_proj, b.key, kv_heads * c.head_dim},
                                  MatmulOutput{&w.v_proj, b.value, kv_heads * c.head_dim}};
  matmul(step.queue(), projections, b.hidden, c.hidden_size, t);
  split_query_gate(step.queue(), {.num_tokens = t, .num_heads = heads, .head_dim = c.head_dim},
                   b.query_gate, b.query, b.gate);
  rms_norm(step.queue(), norm_params(step, heads, c.head_dim), b.query, w.q_norm.data(), b.query);
  rms_norm(step.queue(), norm_params(step, kv_heads, c.head_dim), b.key, w.k_norm.data(), b.key);

  RopeParams rope_params{
      .num_tokens = t, .num_heads = heads, .head_dim = c.head_dim, .rotary_dims = c.rotary_dim()};
  rope(step.queue(), rope_params, b.cos_sin, b.query);
  rope_params.num_heads = kv_heads;
  rope(step.queue(), rope_params, b.cos_sin, b.key);

  kv_append(step.queue(), kv, step.first_position, t, b.key, b.value);
  const AttentionParams params{.num_heads = heads,
                               .first_position = step.first_position,
                               .num_tokens = t,
                               .scale = static_cast<float>(1 / std::sqrt(double(c.head_dim)))};
  attention(step.queue(), params, b.query, kv, b.query, b.attention_scratch);
  sigmoid_gate(step.queue(), t * heads * c.head_dim, b.gate, b.query);
  project(step, w.o_proj, b.query, b.update);
}

// The shared expert joins the routed ones as one more choice, of weight σ(shared_logit), summed
// last: what the router chose stays in rank order.
void append_shared_expert(const Step& step) {
  Workspace& b = step.buffers();
  const int64_t top_k = step.config().num_experts_per_tok;
  for (int64_t t = 0; t < step.num_tokens; ++t) {
    std::copy_n(b.routed_ids + t * top_k, top_k, b.expert_ids + t * (top_k + 1));
    std::copy_n(b.routed_weights + t * top_k, top_k, b.expert_weights + t * (top_k + 1));
    b.expert_ids[t * (top_k + 1) + top_k] = static_cast<int32_t>(step.config().num_experts);
    b.expert_weights[t * (top_k + 1) + top_k] = 1.0f / (1.0f + std::exp(-b.shared_logit[t]));
  }
}

// buffers().hidden → buffers().update
void mixture_of_experts(const Step& step, const LayerWeights& w) {
  const ModelConfig& c = step.config();
  Workspace& b = step.buffers();
  const int64_t t = step.num_tokens;
  MoeBatch batch{.x = b.hidden,
                 .num_tokens = t,
                 .hidden = c.hidden_size,
                 .top_k = 1,
                 .expert_ids = b.expert_ids,
                 .expert_weights = b.expert_weights};
  if (w.is_moe) {
    const std::array projections = {MatmulOutput{&w.router, b.router_logits, c.num_experts},
                                    MatmulOutput{&w.shared_expert_gate, b.shared_logit, 1}};
    matmul(step.queue(), projections, b.hidden, c.hidden_size, t);
    route(step.queue(),
          {.num_tokens = t,
           .num_experts = c.num_experts,
           .top_k = c.num_experts_per_tok,
           .normalize = c.norm_topk_prob},
          b.router_logits, b.routed_ids, b.routed_weights);
    append_shared_expert(step);
    batch.top_k = static_cast<int32_t>(c.num_experts_per_tok + 1);
  } else {
    std::fill_n(b.expert_ids, t, 0);
    std::fill_n(b.expert_weights, t, 1.0f);
  }
  moe_experts(step.queue(), w.experts, batch, b.update);
}

void prepare_positions(const Step& step) {
  std::vector<int64_t>& positions = step.buffers().positions;
  const auto count = static_cast<size_t>(step.num_tokens);
  for (size_t i = 0; i < count; ++i) {
    positions[i] = step.first_position + static_cast<int64_t>(i);
  }
  rope_angles(step.queue(), step.context.rope, std::span(positions).first(count),
              step.buffers().cos_sin);
}

}  // namespace

void forward(ForwardContext& context, SequenceCache& sequence, std::span<const int32_t> ids,
             int64_t num_logits, float* logits) {
  const auto num_tokens = static_cast<int64_t>(ids.size());
  const Step step{context, sequence, num_tokens, sequence.num_tokens()};
  const ModelConfig& c = context.config;
  const ModelWeights& w = context.weights;
  Workspace& b = context.workspace;
  HS_CHECK(num_tokens >= 1 && num_tokens <= b.shape.max_chunk && num_logits <= num_tokens,
           "{} tokens, {} logits, chunk {}", num_tokens, num_logits, b.shape.max_chunk);
  const RmsNormParams norm = norm_params(step, 1, c.hidden_size);

  prepare_positions(step);
  embed(context.queue, w.embed_tokens, ids, b.residual);
  rms_norm(context.queue, norm, b.residual, w.layers[0].input_layernorm.data(), b.hidden);
  int64_t state_layer = 0;
  int64_t kv_layer = 0;
  for (size_t i = 0; i < w.layers.size(); ++i) {
    const LayerWeights& layer = w.layers[i];
    if (layer.mixer == MixerKind::kLinearAttention) {
      linear_attention(step, layer.linear_attention, state_layer++);
    } else {
      full_attention(step, layer.full_attention, kv_layer++);
    }
    add_rms_norm(context.queue, norm, b.update, b.residual, layer.post_attention_layernorm.data(),
                 b.hidden);
    mixture_of_experts(step, layer);
    const std::vector<float>& next_norm =
        i + 1 < w.layers.size() ? w.layers[i + 1].input_layernorm : w.norm;
    add_rms_norm(context.queue, norm, b.update, b.residual, next_norm.data(), b.hidden);
  }
  sequence.commit(step.first_position + num_tokens);

  if (num_logits == 0) return;
  const std::array head = {MatmulOutput{&w.lm_head, logits, c.vocab_size}};
  matmul(context.queue, head, b.hidden + (num_tokens - num_logits) * c.hidden_size, c.hidden_size,
         num_logits);
}

}  // namespace hotset
