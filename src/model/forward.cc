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
#include "telemetry/stage_clock.h"

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
  [[nodiscard]] StageScope stage(Stage which, int64_t bytes = 0) const {
    return {context.clock, which, bytes};
  }
};

void project(const Step& step, const PackedMatrix& weight, const float* x, float* y) {
  const StageScope stage = step.stage(Stage::kMixerProjections, weight.bytes());
  const std::array outputs = {MatmulOutput{&weight, y, weight.rows}};
  matmul(step.queue(), outputs, x, weight.cols, step.num_tokens);
}

// Several matrices that read buffers().hidden.
void project_all(const Step& step, std::span<const MatmulOutput> outputs, Stage stage) {
  int64_t bytes = 0;
  for (const MatmulOutput& output : outputs) bytes += output.weight->bytes();
  const StageScope scope = step.stage(stage, bytes);
  matmul(step.queue(), outputs, step.buffers().hidden, step.config().hidden_size, step.num_tokens);
}

RmsNormParams norm_params(const Step& step, int64_t rows_per_token, int64_t cols) {
  return {.num_rows = step.num_tokens * rows_per_token,
          .cols = cols,
          .eps = static_cast<float>(step.config().rms_norm_eps)};
}

DeltaNetShape delta_net_shape(const ModelConfig& c) {
  return {.num_key_heads = c.linear_num_key_heads,
          .num_value_heads = c.linear_num_value_heads,
          .key_head_dim = c.linear_key_head_dim,
          .value_head_dim = c.linear_value_head_dim};
}

// buffers().qkvz, ba → buffers().delta_out: everything between the projections.
void delta_net(const Step& step, const LinearAttentionWeights& w, int64_t state_layer) {
  const ModelConfig& c = step.config();
  Workspace& b = step.buffers();
  const int64_t t = step.num_tokens;
  const DeltaNetShape shape = delta_net_shape(c);
  StatePool& states = step.context.states;
  const int32_t slot = step.sequence.state_slot();
  const StageScope scope =
      step.stage(Stage::kDeltaNet, states.shape().layer_floats() * 8);  // read and written

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
}

// buffers().hidden → buffers().update
void linear_attention(const Step& step, const LinearAttentionWeights& w, int64_t state_layer) {
  const ModelConfig& c = step.config();
  Workspace& b = step.buffers();
  const std::array projections = {MatmulOutput{&w.in_proj_qkvz, b.qkvz, c.qkvz_dim()},
                                  MatmulOutput{&w.in_proj_ba, b.ba, 2 * c.linear_num_value_heads}};
  project_all(step, projections, Stage::kMixerProjections);
  delta_net(step, w, state_layer);
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

void norm_and_rope(const Step& step, int64_t num_heads, const std::vector<float>& norm, float* x) {
  const ModelConfig& c = step.config();
  rms_norm(step.queue(), norm_params(step, num_heads, c.head_dim), x, norm.data(), x);
  rope(step.queue(),
       {.num_tokens = step.num_tokens,
        .num_heads = num_heads,
        .head_dim = c.head_dim,
        .rotary_dims = c.rotary_dim()},
       step.buffers().cos_sin, x);
}

// buffers().query_gate, key, value → buffers().query: everything between the projections.
void gated_attention(const Step& step, const FullAttentionWeights& w, int64_t kv_layer) {
  const ModelConfig& c = step.config();
  Workspace& b = step.buffers();
  const int64_t t = step.num_tokens;
  const int64_t heads = c.num_attention_heads;
  const KvPages kv = layer_pages(step, kv_layer);
  const int64_t position_bytes = kv.page_bytes() / kv.page_tokens;
  const StageScope scope =
      step.stage(Stage::kAttention, (step.first_position + t) * position_bytes);

  split_query_gate(step.queue(), {.num_tokens = t, .num_heads = heads, .head_dim = c.head_dim},
                   b.query_gate, b.query, b.gate);
  norm_and_rope(step, heads, w.q_norm, b.query);
  norm_and_rope(step, c.num_key_value_heads, w.k_norm, b.key);
  kv_append(step.queue(), kv, step.first_position, t, b.key, b.value);
  const AttentionParams params{.num_heads = heads,
                               .first_position = step.first_position,
                               .num_tokens = t,
                               .scale = static_cast<float>(1 / std::sqrt(double(c.head_dim)))};
  attention(step.queue(), params, b.query, kv, b.query, b.attention_scratch);
  sigmoid_gate(step.queue(), t * heads * c.head_dim, b.gate, b.query);
}

// buffers().hidden → buffers().update
void full_attention(const Step& step, const FullAttentionWeights& w, int64_t kv_layer) {
  const ModelConfig& c = step.config();
  Workspace& b = step.buffers();
  const int64_t kv_dim = c.num_key_value_heads * c.head_dim;
  const std::array projections = {
      MatmulOutput{&w.q_proj, b.query_gate, 2 * c.num_attention_heads * c.head_dim},
      MatmulOutput{&w.k_proj, b.key, kv_dim}, MatmulOutput{&w.v_proj, b.value, kv_dim}};
  project_all(step, projections, Stage::kMixerProjections);
  gated_attention(step, w, kv_layer);
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

// What the chosen experts weigh, each counted once.
int64_t chosen_expert_bytes(const Step& step, const LayerWeights& w, const MoeBatch& batch) {
  if (step.context.clock == nullptr) return 0;
  std::vector<bool> seen(w.experts.size());
  int64_t bytes = 0;
  for (int64_t i = 0; i < batch.num_tokens * batch.top_k; ++i) {
    const auto id = static_cast<size_t>(batch.expert_ids[i]);
    if (seen[id]) continue;
    seen[id] = true;
    const ExpertView& expert = w.experts[id];
    bytes += expert.gate.bytes() + expert.up.bytes() + expert.down.bytes();
  }
  return bytes;
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
    project_all(step, projections, Stage::kRouter);
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
  const StageScope scope = step.stage(Stage::kExperts, chosen_expert_bytes(step, w, batch));
  moe_experts(step.queue(), w.experts, batch, b.update);
}

void embed_tokens(const Step& step, std::span<const int32_t> ids) {
  Workspace& b = step.buffers();
  const StageScope scope = step.stage(Stage::kEmbed);
  for (size_t i = 0; i < ids.size(); ++i) {
    b.positions[i] = step.first_position + static_cast<int64_t>(i);
  }
  rope_angles(step.queue(), step.context.rope, std::span(b.positions).first(ids.size()), b.cos_sin);
  embed(step.queue(), step.context.weights.embed_tokens, ids, b.residual);
}

// residual ← residual + update;  hidden ← norm(residual)
void add_and_norm(const Step& step, const std::vector<float>& weight) {
  const StageScope scope = step.stage(Stage::kNorms);
  Workspace& b = step.buffers();
  add_rms_norm(step.queue(), norm_params(step, 1, step.config().hidden_size), b.update, b.residual,
               weight.data(), b.hidden);
}

void head(const Step& step, int64_t num_logits, float* logits) {
  const PackedMatrix& lm_head = step.context.weights.lm_head;
  const StageScope scope = step.stage(Stage::kHead, lm_head.bytes());
  const std::array output = {MatmulOutput{&lm_head, logits, lm_head.rows}};
  const float* last = step.buffers().hidden + (step.num_tokens - num_logits) * lm_head.cols;
  matmul(step.queue(), output, last, lm_head.cols, num_logits);
}

}  // namespace

void forward(ForwardContext& context, SequenceCache& sequence, std::span<const int32_t> ids,
             int64_t num_logits, float* logits) {
  const auto num_tokens = static_cast<int64_t>(ids.size());
  const Step step{context, sequence, num_tokens, sequence.num_tokens()};
  const ModelWeights& w = context.weights;
  Workspace& b = context.workspace;
  HS_CHECK(num_tokens >= 1 && num_tokens <= b.shape.max_chunk && num_logits <= num_tokens,
           "{} tokens, {} logits, chunk {}", num_tokens, num_logits, b.shape.max_chunk);

  embed_tokens(step, ids);
  rms_norm(context.queue, norm_params(step, 1, context.config.hidden_size), b.residual,
           w.layers[0].input_layernorm.data(), b.hidden);
  int64_t state_layer = 0;
  int64_t kv_layer = 0;
  for (size_t i = 0; i < w.layers.size(); ++i) {
    const LayerWeights& layer = w.layers[i];
    if (layer.mixer == MixerKind::kLinearAttention) {
      linear_attention(step, layer.linear_attention, state_layer++);
    } else {
      full_attention(step, layer.full_attention, kv_layer++);
    }
    add_and_norm(step, layer.post_attention_layernorm);
    mixture_of_experts(step, layer);
    add_and_norm(step, i + 1 < w.layers.size() ? w.layers[i + 1].input_layernorm : w.norm);
  }
  sequence.commit(step.first_position + num_tokens);
  if (num_logits > 0) head(step, num_logits, logits);
}

void forward_mtp(ForwardContext& context, SequenceCache& sequence,
                 std::span<const int32_t> next_ids, int64_t num_logits, float* logits) {
  const auto num_tokens = static_cast<int64_t>(next_ids.size());
  const Step step{context, sequence, num_tokens, sequence.num_tokens() - num_tokens};
  const MtpWeights& w = *context.weights.mtp;
  const int64_t hidden = context.config.hidden_size;
  Workspace& b = context.workspace;

  // Row: norm(embedding of the next token), norm(hidden state). positions and cos_sin are still
  // those of the trunk's call.
  embed(context.queue, context.weights.embed_tokens, next_ids, b.residual);
  const RmsNormParams norm = norm_params(step, 1, hidden);
  rms_norm(context.queue, norm, b.residual, w.pre_fc_norm_embedding.data(), b.residual);
  rms_norm(context.queue, norm, b.hidden, w.pre_fc_norm_hidden.data(), b.update);
  for (int64_t t = 0; t < num_tokens; ++t) {
    std::copy_n(b.residual + t * hidden, hidden, b.mtp_input + t * 2 * hidden);
    std::copy_n(b.update + t * hidden, hidden, b.mtp_input + t * 2 * hidden + hidden);
  }
  project(step, w.fc, b.mtp_input, b.residual);
  rms_norm(context.queue, norm, b.residual, w.layer.input_layernorm.data(), b.hidden);
  full_attention(step, w.layer.full_attention, context.config.num_full_attention_layers());
  add_and_norm(step, w.layer.post_attention_layernorm);
  mixture_of_experts(step, w.layer);
  add_and_norm(step, w.norm);
  if (num_logits > 0) head(step, num_logits, logits);
}

}  // namespace hotset
