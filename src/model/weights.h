// SPDX-License-Identifier: Apache-2.0
// The weights of a model as forward() reads them: a struct of views, and the memory behind them.
//
// Loading is two steps. plan_weights() finds every linear in the checkpoint, checks its shape
// against the config and sizes its packed form, reading headers only; `hotset inspect` prints what
// it found. load_weights() reads and packs everything into two kinds of arenas: one for the dense
// modules, and one bank a layer for experts, where an expert is one contiguous record (gate, up,
// down) that a single copy moves.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/pack.h"
#include "checkpoint/quant_config.h"
#include "kernels/moe.h"
#include "memory/huge_buffer.h"
#include "model/config.h"
#include "quant/packed_matrix.h"

namespace hotset {

// A parameter that is not a matrix; a view of ModelWeights::vectors.
using Vector = std::span<const float>;

struct LinearAttentionWeights {
  PackedMatrix in_proj_qkvz;  // [qkvz_dim, hidden_size], grouped by key head as in the checkpoint
  PackedMatrix in_proj_ba;    // [2·linear_num_value_heads, hidden_size], grouped likewise
  PackedMatrix out_proj;      // [hidden_size, value_dim]
  Vector conv1d;              // [linear_conv_kernel_dim, conv_dim] (transposed at load)
  Vector a_log;               // [linear_num_value_heads]
  Vector dt_bias;             // [linear_num_value_heads]
  Vector norm;                // [linear_value_head_dim], plain weight
};

struct FullAttentionWeights {
  PackedMatrix q_proj;  // [num_attention_heads · 2·head_dim, hidden_size], query then gate per head
  PackedMatrix k_proj;  // [num_key_value_heads · head_dim, hidden_size]
  PackedMatrix v_proj;
  PackedMatrix o_proj;  // [hidden_size, num_attention_heads · head_dim]
  Vector q_norm;        // [head_dim], zero-centred
  Vector k_norm;
};

struct LayerWeights {
  MixerKind mixer = MixerKind::kLinearAttention;
  LinearAttentionWeights linear_attention;
  FullAttentionWeights full_attention;
  Vector input_layernorm;           // [hidden_size], zero-centred
  Vector post_attention_layernorm;  // [hidden_size], zero-centred

  // MoE: the routed experts and, last, the shared expert. Dense: one expert that is always chosen.
  bool is_moe = false;
  PackedMatrix router;              // [num_experts, hidden_size]
  PackedMatrix shared_expert_gate;  // [1, hidden_size]
  std::vector<ExpertView> experts;
};

// The multi-token-prediction head: one decoder layer that reads the trunk's last hidden state
// together with the next token, and predicts the token after that. It shares embedding and lm_head.
struct MtpWeights {
  Vector pre_fc_norm_embedding;  // [hidden_size], zero-centred
  Vector pre_fc_norm_hidden;     // [hidden_size], zero-centred
  PackedMatrix fc;               // [hidden_size, 2·hidden_size], embedding half first
  LayerWeights layer;            // full attention
  Vector norm;                   // [hidden_size], zero-centred
};

struct ModelWeights {
  PackedMatrix embed_tokens;  // [vocab_size, hidden_size]
  PackedMatrix lm_head;       // the same view when tie_word_embeddings
  Vector norm;                // [hidden_size], zero-centred
  std::vector<LayerWeights> layers;
  std::unique_ptr<MtpWeights> mtp;  // when asked for and present

  // What the views point into.
  std::deque<std::vector<float>> vectors;
  HugeBuffer dense_memory;
  std::vector<HugeBuffer> banks;  // [num_hidden_layers + 1], the last one for the MTP layer
  std::vector<PackAux> aux;
};

struct LoadOptions {
  bool dense_8bit = false;  // mixers, shared experts and lm_head stored at 16 bits become int8
  bool codebook_scales_at_16 = false;  // see PackOptions
  bool mtp = false;                    // load the multi-token-prediction head
  int num_threads = 1;
};

// One line of `hotset inspect`: what a part of the model is made of.
struct ComponentSummary {
  std::string name;            // "experts", "linear attention", …
  int64_t num_tensors = 0;     // linears and vectors
  int64_t num_parameters = 0;  // weights, not codes or scales
  int64_t file_bytes = 0;
  int64_t memory_bytes = 0;
  std::map<std::string, int64_t> formats;  // how many of each

  [[nodiscard]] std::string formats_text() const;  // "gptq affine4 g128 ×12288, bf16 ×4"
};

// A linear, where it comes from and where it goes.
struct LinearTask {
  LinearSource source;
  PackPlan plan;
  int component = 0;  // index into WeightPlan::components
  bool may_be_8bit = false;
  int bank = -1;       // layer of the expert bank; −1: dense memory
  int64_t offset = 0;  // in its arena, 64-byte aligned
  PackedMatrix* to = nullptr;
};

// Until load_weights() the views know shape and encoding; their data are places in an address space
// that does not exist, which tell sizes and distances and are never read.
struct WeightPlan {
  std::unique_ptr<ModelWeights> weights;  // vectors are read
  std::vector<LinearTask> tasks;
  std::vector<ComponentSummary> components;
  std::vector<std::string> notes;            // requantised or widened linears, and why
  std::vector<std::string> unknown_tensors;  // in the checkpoint, read by nothing
  int64_t num_mtp_tensors = 0;               // present in the checkpoint
  bool has_16bit_linears = false;            // some that may be kept at 8 bits
  bool lm_head_is_embedding = false;         // tied
  int64_t dense_bytes = 0;
  std::vector<int64_t> bank_bytes;
  int64_t read_bytes = 0;  // what loading will read
};

// The checkpoint outlives the plan.
Result<WeightPlan> plan_weights(const Checkpoint& checkpoint, const QuantConfig& quant,
                                const ModelConfig& config, const LoadOptions& options);

// Plans again with 16-bit modules at 8 bits, or as stored.
Status set_dense_8bit(const Checkpoint& checkpoint, WeightPlan& plan, bool dense_8bit);

struct LoadProgress {
  int64_t bytes_done = 0;
  int64_t bytes_total = 0;
  double seconds = 0;
};
// Called on the loading thread about ten times a second, and once at the end.
using LoadProgressFn = std::function<void(const LoadProgress&)>;

struct LoadReport {
  PackLoss loss;  // of dense_8bit
  double seconds = 0;
};

// Takes the weights out of the plan.
Result<std::unique_ptr<ModelWeights>> load_weights(const Checkpoint& checkpoint, WeightPlan plan,
                                                   const LoadOptions& options,
                                                   const LoadProgressFn& progress,
                                                   LoadReport* report);

}  // namespace hotset
