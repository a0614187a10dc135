// SPDX-License-Identifier: Apache-2.0
#include "model/forward.h"

#include <array>
#include <type_traits>

#include "base/check.h"
#include "kernels/delta_mixer.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/gated_attention.h"
#include "kernels/matmul.h"
#include "kernels/moe.h"
#include "kernels/rms_norm.h"
#include "kernels/router.h"
#include "telemetry/stage_clock.h"
#ifdef HOTSET_HAS_CUDA
#include "kernels/cuda/queue.h"
#include "model/gpu_experts.h"
#endif

namespace hotset {
namespace {

// On the CPU the scope is timed; on a GPU a mark says what follows on the stream.
template <typename Queue>
StageScope begin_stage(const ForwardContext<Queue>& context, Stage which, int64_t bytes) {
  if constexpr (!std::is_same_v<Queue, cpu::Queue>) {
    if (context.marks != nullptr) context.queue.note(context.marks->mark(which, bytes));
  }
  return {context.clock, which, bytes};
}

// A piece of a step: the context, and what this piece adds to it.
template <typename Queue>
struct Step {
  ForwardContext<Queue>& context;
  const StepBatch& batch;
  int64_t first_row = 0;  // of this piece in the buffers of the whole step

  [[nodiscard]] const ModelConfig& config() const { return context.config; }
  [[nodiscard]] Workspace& buffers() const { return context.workspace; }
  [[nodiscard]] Queue& queue() const { return context.queue; }
  [[nodiscard]] int64_t num_tokens() const { return batch.num_tokens; }
  // Rows of the whole step: residual, hidden and cos_sin. All other buffers are the piece's own.
  [[nodiscard]] float* residual() const {
    return context.workspace.residual + first_row * context.config.hidden_size;
  }
  [[nodiscard]] float* hidden() const {
    return context.workspace.hidden + first_row * context.config.hidden_size;
  }
  [[nodiscard]] float* cos_sin() const {
    return context.workspace.cos_sin + first_row * context.config.rotary_dim();
  }
  [[nodiscard]] StageScope stage(Stage which, int64_t bytes = 0) const {
    return begin_stage(context, which, bytes);
  }
  [[nodiscard]] RmsNormParams norm() const {
    return {.num_rows = batch.num_tokens,
            .cols = context.config.hidden_size,
            .eps = static_cast<float>(context.config.rms_norm_eps)};
  }
};

template <typename Queue>
void project(const Step<Queue>& step, const PackedMatrix& weight, const float* x, float* y) {
  const StageScope stage = step.stage(Stage::kMixerProjections, weight.bytes());
  const std::array outputs = {MatmulOutput{&weight, y, weight.rows}};
  matmul(step.queue(), outputs, x, weight.cols, step.num_tokens());
}

// Several matrices that read hidden().
template <typename Queue>
void project_all(const Step<Queue>& step, std::span<const MatmulOutput> outputs, Stage stage) {
  int64_t bytes = 0;
  for (const MatmulOutput& output : outputs) bytes += output.weight->bytes();
  const StageScope scope = step.stage(stage, bytes);
  matmul(step.queue(), outputs, step.hidden(), step.config().hidden_size, step.num_tokens());
}

// hidden() → buffers().update
template <typename Queue>
void linear_attention(const Step<Queue>& step, const LinearAttentionWeights& w,
                      int64_t state_layer) {
  const ModelConfig& c = step.config();
  Workspace& b = step.buffers();
  const std::array projections = {MatmulOutput{&w.in_proj_qkvz, b.qkvz, c.qkvz_dim()},
                                  MatmulOutput{&w.in_proj_ba, b.ba, 2 * c.linear_num_value_heads}};
  project_all<Queue>(step, projections, Stage::kMixerProjections);
  {
    const CacheLayout& cache = step.context.cache;
    const StageScope scope =
        step.stage(Stage::kDeltaNet, step.batch.num_sequences * cache.state_layer_floats * 8);
    const int64_t offset = state_layer * cache.state_layer_floats;
    const DeltaMixer mixer{.shape = {.num_key_heads = c.linear_num_key_heads,
                                     .num_value_heads = c.linear_num_value_heads,
                                     .key_head_dim = c.linear_key_head_dim,
                                     .value_head_dim = c.linear_value_head_dim},
                           .conv_kernel = c.linear_conv_kernel_dim,
                           .eps = static_cast<float>(c.rms_norm_eps),
                           .conv1d = w.conv1d.data(),
                           .a_log = w.a_log.data(),
                           .dt_bias = w.dt_bias.data(),
                           .norm = w.norm.data(),
                           .delta_offset = offset,
                           .conv_offset = offset + cache.delta_floats};
    delta_mixer(step.queue(), mixer, step.batch, b.qkvz, b.ba,
                {b.mixed, b.z, b.beta, b.decay, b.delta_scratch}, b.delta_out);
  }
  project(step, w.out_proj, b.delta_out, b.update);
}

// hidden() → buffers().update
template <typename Queue>
void full_attention(const Step<Queue>& step, const FullAttentionWeights& w, int64_t kv_layer) {
  const ModelConfig& c = step.config();
  Workspace& b = step.buffers();
  const int64_t kv_dim = c.num_key_value_heads * c.head_dim;
  const std::array projections = {
      MatmulOutput{&w.q_proj, b.query_gate, 2 * c.num_attention_heads * c.head_dim},
      MatmulOutput{&w.k_proj, b.key, kv_dim}, MatmulOutput{&w.v_proj, b.value, kv_dim}};
  project_all<Queue>(step, projections, Stage::kMixerProjections);
  {
    const int64_t layer_bytes = step.context.cache.kv_layer_bytes;
    const StageScope scope =
        step.stage(Stage::kAttention, step.batch.max_positions * layer_bytes / b.shape.page_tokens);
    const GatedAttention layer{.num_heads = c.num_attention_heads,
                               .num_kv_heads = c.num_key_value_heads,
                               .head_dim = c.head_dim,
                               .rotary_dims = c.rotary_dim(),
                               .eps = static_cast<float>(c.rms_norm_eps),
                               .q_norm = w.q_norm.data(),
                               .k_norm = w.k_norm.data(),
                               .kv_type = b.shape.kv_type,
                               .page_tokens = b.shape.page_tokens,
                               .layer_offset = kv_layer * layer_bytes};
    gated_attention(step.queue(), layer, step.batch, b.query_gate, b.key, b.value,
                    {step.cos_sin(), b.gate, b.attention_scratch, b.layer_pages.data()}, b.query);
  }
  project(step, w.o_proj, b.query, b.update);
}

// hidden() → buffers().update
template <typename Queue>
void mixture_of_experts(const Step<Queue>& step, const LayerWeights& w, int64_t layer) {
  const ModelConfig& c = step.config();
  Workspace& b = step.buffers();
  MoeBatch batch{.x = step.hidden(),
                 .num_tokens = step.num_tokens(),
                 .hidden = c.hidden_size,
                 .top_k = 1,
                 .expert_ids = b.dense_ids,
                 .expert_weights = b.dense_weights};
  if (w.is_moe) {
    // A prediction is routed as if it were as many more tokens; their shared choice means nothing.
    const bool predicts = step.context.experts.predicts_next(layer, step.num_tokens());
    const PackedMatrix& next_router =
        predicts ? step.context.weights.layers[static_cast<size_t>(layer + 1)].router : w.router;
    const std::array projections = {
        MatmulOutput{&w.router, b.router_logits, c.num_experts},
        MatmulOutput{&w.shared_expert_gate, b.shared_logit, 1},
        MatmulOutput{&next_router, b.router_logits + step.num_tokens() * c.num_experts,
                     c.num_experts}};
    project_all<Queue>(step, std::span(projections).first(predicts ? 3 : 2), Stage::kRouter);
    route_with_shared(step.queue(),
                      {.num_tokens = (predicts ? 2 : 1) * step.num_tokens(),
                       .num_experts = c.num_experts,
                       .top_k = c.num_experts_per_tok,
                       .normalize = c.norm_topk_prob},
                      b.router_logits, b.shared_logit, b.expert_ids, b.expert_weights);
    batch.top_k = static_cast<int32_t>(c.num_experts_per_tok + 1);
    batch.expert_ids = b.expert_ids;
    batch.expert_weights = b.expert_weights;
  }
  const bool timed = step.context.clock != nullptr;
  const StageScope scope =
      step.stage(Stage::kExperts, timed ? step.context.experts.chosen_bytes(w, batch) : 0);
  step.context.experts.run(step.queue(), layer, w, batch, b.update);
}

// residual() ← residual() + update;  hidden() ← norm(residual())
template <typename Queue>
void add_and_norm(const Step<Queue>& step, Vector weight) {
  const StageScope scope = step.stage(Stage::kNorms);
  add_rms_norm(step.queue(), step.norm(), step.buffers().update, step.residual(), weight.data(),
               step.hidden());
}

// Logits of the last rows of the whole step.
template <typename Queue>
void head(ForwardContext<Queue>& context, int64_t num_tokens, int64_t num_logits, float* logits) {
  const PackedMatrix& lm_head = context.weights.lm_head;
  const StageScope scope = begin_stage(context, Stage::kHead, lm_head.bytes());
  const std::array output = {MatmulOutput{&lm_head, logits, lm_head.rows}};
  const float* last = context.workspace.hidden + (num_tokens - num_logits) * lm_head.cols;
  matmul(context.queue, output, last, lm_head.cols, num_logits);
}

// hidden() ← the first layer's input for a piece of `ids`.
template <typename Queue>
void embed_tokens(const Step<Queue>& step, std::span<const int32_t> ids) {
  const ForwardContext<Queue>& context = step.context;
  const StageScope scope = step.stage(Stage::kEmbed);
  rope_angles(step.queue(), context.rope, step.batch, step.cos_sin());
  embed(step.queue(), context.weights.embed_tokens, ids, step.residual());
  rms_norm(step.queue(), step.norm(), step.residual(),
           context.weights.layers[0].input_layernorm.data(), step.hidden());
}

// `mixer_layer` counts layers of the same kind of mixer.
template <typename Queue>
void decoder_layer(const Step<Queue>& step, size_t index, int64_t mixer_layer) {
  const ModelWeights& w = step.context.weights;
  const LayerWeights& layer = w.layers[index];
  if (layer.mixer == MixerKind::kLinearAttention) {
    linear_attention(step, layer.linear_attention, mixer_layer);
  } else {
    full_attention(step, layer.full_attention, mixer_layer);
  }
  add_and_norm(step, layer.post_attention_layernorm);
  mixture_of_experts(step, layer, static_cast<int64_t>(index));
  add_and_norm(step, index + 1 < w.layers.size() ? w.layers[index + 1].input_layernorm : w.norm);
}

void check_step(const Workspace& b, std::span<const StepBatch> pieces, int64_t num_tokens,
                int64_t num_logits) {
  int64_t rows = 0;
  for (const StepBatch& piece : pieces) {
    HS_CHECK(piece.num_tokens >= 1 && piece.num_tokens <= b.shape.max_chunk,
             "a piece of {} rows, at most {}", piece.num_tokens, b.shape.max_chunk);
    rows += piece.num_tokens;
  }
  HS_CHECK(rows == num_tokens && rows >= 1 && rows <= b.shape.max_step && num_logits <= rows,
           "{} rows for {} tokens, {} logits, at most {}", rows, num_tokens, num_logits,
           b.shape.max_step);
}

}  // namespace

template <typename Queue>
void forward(ForwardContext<Queue>& context, std::span<const StepBatch> pieces,
             std::span<const int32_t> ids, int64_t num_logits, float* logits) {
  const int64_t num_tokens = std::ssize(ids);
  check_step(context.workspace, pieces, num_tokens, num_logits);
  const auto for_each_piece = [&](const auto& body) {
    int64_t first_row = 0;
    for (const StepBatch& piece : pieces) {
      body(Step<Queue>{context, piece, first_row});
      first_row += piece.num_tokens;
    }
  };
  for_each_piece([&](const Step<Queue>& step) {
    embed_tokens(step, ids.subspan(static_cast<size_t>(step.first_row),
                                   static_cast<size_t>(step.num_tokens())));
  });
  int64_t num_seen[2] = {};  // layers of each kind of mixer
  for (size_t i = 0; i < context.weights.layers.size(); ++i) {
    const int64_t mixer_layer = num_seen[static_cast<int>(context.weights.layers[i].mixer)]++;
    context.experts.begin_layer(static_cast<int64_t>(i), num_tokens);
    for_each_piece([&](const Step<Queue>& step) { decoder_layer(step, i, mixer_layer); });
    context.experts.end_layer(static_cast<int64_t>(i), num_tokens);
  }
  if (num_logits > 0) head(context, num_tokens, num_logits, logits);
}

template void forward<cpu::Queue>(ForwardContext<cpu::Queue>&, std::span<const StepBatch>,
                                  std::span<const int32_t>, int64_t, float*);
#ifdef HOTSET_HAS_CUDA
template void forward<cuda::Queue>(ForwardContext<cuda::Queue>&, std::span<const StepBatch>,
                                   std::span<const int32_t>, int64_t, float*);
#endif

void forward_mtp(ForwardContext<cpu::Queue>& context, const StepBatch& batch,
                 std::span<const int32_t> next_ids, int64_t num_logits, float* logits) {
  const Step<cpu::Queue> step{context, batch};
  const MtpWeights& w = *context.weights.mtp;
  const int64_t hidden = context.config.hidden_size;
  Workspace& b = context.workspace;

  // Row: norm(embedding of the next token), norm(hidden state). cos_sin is still that of the
  // trunk's call.
  embed(context.queue, context.weights.embed_tokens, next_ids, b.residual);
  rms_norm(context.queue, step.norm(), b.residual, w.pre_fc_norm_embedding.data(), b.residual);
  rms_norm(context.queue, step.norm(), b.hidden, w.pre_fc_norm_hidden.data(), b.update);
  for (int64_t t = 0; t < batch.num_tokens; ++t) {
    std::copy_n(b.residual + t * hidden, hidden, b.mtp_input + t * 2 * hidden);
    std::copy_n(b.update + t * hidden, hidden, b.mtp_input + t * 2 * hidden + hidden);
  }
  project(step, w.fc, b.mtp_input, b.residual);
  rms_norm(context.queue, step.norm(), b.residual, w.layer.input_layernorm.data(), b.hidden);
  full_attention(step, w.layer.full_attention, context.config.num_full_attention_layers());
  add_and_norm(step, w.layer.post_attention_layernorm);
  mixture_of_experts(step, w.layer, context.config.num_hidden_layers);
  add_and_norm(step, w.norm);
  if (num_logits > 0) head(context, batch.num_tokens, num_logits, logits);
}

}  // namespace hotset
