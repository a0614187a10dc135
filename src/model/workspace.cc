// SPDX-License-Identifier: Apache-2.0
#include "model/workspace.h"

#include <algorithm>

#include "base/checked_math.h"
#include "kernels/cpu/queue.h"
#include "kernels/delta_rule.h"

namespace hotset {
namespace {

// Two passes over the same list: the first measures, the second hands out.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}

  template <typename T>
  void take(T*& to, int64_t count) {
    if (base_ != nullptr) to = reinterpret_cast<T*>(base_ + used_);
    used_ += round_up(count * int64_t{sizeof(T)}, 256);
  }
  [[nodiscard]] int64_t used() const { return used_; }

 private:
  std::byte* base_;
  int64_t used_ = 0;
};

int64_t attention_scratch(const ModelConfig& c, const WorkspaceShape& s, const cpu::Queue& queue) {
  const KvPages kv{.type = s.kv_type,
                   .page_tokens = s.page_tokens,
                   .num_kv_heads = c.num_key_value_heads,
                   .head_dim = c.head_dim};
  int64_t floats = 0;
  // A short call over a long context splits it; a long call needs room for its queries.
  for (const int64_t tokens : {int64_t{1}, s.max_chunk}) {
    const AttentionParams params{.num_heads = c.num_attention_heads,
                                 .first_position = std::max<int64_t>(0, s.max_context - tokens),
                                 .num_tokens = tokens};
    floats = std::max(floats, attention_workspace_floats(queue, params, kv));
  }
  return floats;
}

int64_t delta_scratch(const ModelConfig& c, const WorkspaceShape& s, const cpu::Queue& queue) {
  const DeltaRuleParams params{.shape = {.num_key_heads = c.linear_num_key_heads,
                                         .num_value_heads = c.linear_num_value_heads,
                                         .key_head_dim = c.linear_key_head_dim,
                                         .value_head_dim = c.linear_value_head_dim},
                               .num_tokens = s.max_chunk};
  return delta_rule_workspace_floats(queue, params);
}

int64_t carve(Workspace& w, const ModelConfig& c, const MixerScratch& scratch, std::byte* base) {
  Carver carver(base);
  const int64_t t = w.shape.max_chunk;
  const int64_t q_dim = c.num_attention_heads * c.head_dim;
  const int64_t kv_dim = c.num_key_value_heads * c.head_dim;
  const int64_t top_k = std::max<int64_t>(1, c.num_experts_per_tok);
  carver.take(w.residual, w.shape.max_step * c.hidden_size);
  carver.take(w.hidden, w.shape.max_step * c.hidden_size);
  carver.take(w.cos_sin, w.shape.max_step * c.rotary_dim());
  carver.take(w.update, t * c.hidden_size);
  carver.take(w.mtp_input, w.shape.mtp ? t * 2 * c.hidden_size : 0);
  carver.take(w.qkvz, t * c.qkvz_dim());
  carver.take(w.ba, t * 2 * c.linear_num_value_heads);
  carver.take(w.mixed, t * c.conv_dim());
  carver.take(w.z, t * c.value_dim());
  carver.take(w.delta_out, t * c.value_dim());
  carver.take(w.beta, t * c.linear_num_value_heads);
  carver.take(w.decay, t * c.linear_num_value_heads);
  carver.take(w.delta_scratch, scratch.delta_floats);
  carver.take(w.query_gate, t * 2 * q_dim);
  carver.take(w.query, t * q_dim);
  carver.take(w.gate, t * q_dim);
  carver.take(w.key, t * kv_dim);
  carver.take(w.value, t * kv_dim);
  carver.take(w.attention_scratch, scratch.attention_floats);
  carver.take(w.router_logits, t * std::max<int64_t>(1, c.num_experts));
  carver.take(w.shared_logit, t);
  carver.take(w.expert_weights, t * (top_k + 1));
  carver.take(w.expert_ids, t * (top_k + 1));
  carver.take(w.dense_ids, t);
  carver.take(w.dense_weights, t);
  return carver.used();
}

}  // namespace

int64_t workspace_bytes(const ModelConfig& config, const WorkspaceShape& shape,
                        const MixerScratch& scratch) {
  Workspace workspace;
  workspace.shape = shape;
  return carve(workspace, config, scratch, nullptr);
}

Workspace place_workspace(const ModelConfig& config, const WorkspaceShape& shape,
                          const MixerScratch& scratch, std::byte* base) {
  Workspace workspace;
  workspace.shape = shape;
  carve(workspace, config, scratch, base);
  return workspace;
}

Result<Workspace> create_workspace(const ModelConfig& config, const WorkspaceShape& shape,
                                   const cpu::Queue& queue) {
  const MixerScratch scratch{.delta_floats = delta_scratch(config, shape, queue),
                             .attention_floats = attention_scratch(config, shape, queue)};
  HS_ASSIGN_OR_RETURN(HugeBuffer memory,
                      HugeBuffer::allocate(workspace_bytes(config, shape, scratch)));
  Workspace workspace = place_workspace(config, shape, scratch, memory.data());
  workspace.memory = std::move(memory);
  std::fill_n(workspace.dense_ids, shape.max_chunk, 0);
  std::fill_n(workspace.dense_weights, shape.max_chunk, 1.0f);
  workspace.layer_pages.resize(static_cast<size_t>(ceil_div(shape.max_context, shape.page_tokens)));
  return workspace;
}

}  // namespace hotset
