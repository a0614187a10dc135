// SPDX-License-Identifier: Apache-2.0
// The numbers of a Qwen3-Next model, in the spelling of config.json, checked against each other
// before anything is sized by them. Both spellings are read: the release files' (rope_theta,
// partial_rotary_factor, full_attention_interval) and transformers 5's (rope_parameters,
// layer_types). Source: huggingface/transformers,
// src/transformers/models/qwen3_next/configuration_qwen3_next.py.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/result.h"

namespace hotset {

enum class MixerKind : uint8_t { kLinearAttention, kFullAttention };

// RoPE with optional YaRN scaling; `factor` 1 means none.
struct RopeParameters {
  double rope_theta = 0;
  double partial_rotary_factor = 0.25;
  double factor = 1;
  int64_t original_max_position_embeddings = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  bool truncate = true;
  double attention_factor = 0;  // 0: the YaRN formula's
};

struct ModelConfig {
  std::string model_type;
  std::string dtype;  // as config.json says it: bfloat16, float16, float32
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;

  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  RopeParameters rope;

  int64_t linear_num_key_heads = 0;
  int64_t linear_num_value_heads = 0;
  int64_t linear_key_head_dim = 0;
  int64_t linear_value_head_dim = 0;
  int64_t linear_conv_kernel_dim = 0;

  int64_t num_experts = 0;
  int64_t num_experts_per_tok = 0;
  bool norm_topk_prob = true;
  int64_t moe_intermediate_size = 0;
  int64_t shared_expert_intermediate_size = 0;
  int64_t intermediate_size = 0;  // width of dense (non-MoE) layers

  std::vector<MixerKind> layer_types;  // [num_hidden_layers]
  std::vector<bool> layer_is_moe;      // [num_hidden_layers]
  std::vector<int64_t> eos_token_ids;

  [[nodiscard]] int64_t rotary_dim() const;
  [[nodiscard]] int64_t key_dim() const { return linear_num_key_heads * linear_key_head_dim; }
  [[nodiscard]] int64_t value_dim() const { return linear_num_value_heads * linear_value_head_dim; }
  [[nodiscard]] int64_t conv_dim() const { return 2 * key_dim() + value_dim(); }
  [[nodiscard]] int64_t qkvz_dim() const { return 2 * key_dim() + 2 * value_dim(); }
  [[nodiscard]] int64_t num_full_attention_layers() const;
  [[nodiscard]] int64_t num_linear_attention_layers() const;
};

// `origin` (a path) opens every error message.
Result<ModelConfig> parse_model_config(const nlohmann::ordered_json& json,
                                       const std::string& origin);

}  // namespace hotset
