// SPDX-License-Identifier: Apache-2.0
// What a synthetic checkpoint consists of: the built-in dimensions, and from them config.json and
// the list of tensors in the format asked for.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "synth.h"
#include "synth_fill.h"

namespace hotset {

struct SynthModel {
  const char* name;
  int64_t vocab_size;
  int64_t hidden_size;
  int64_t num_hidden_layers;
  int64_t full_attention_interval;
  int64_t num_attention_heads;
  int64_t num_key_value_heads;
  int64_t head_dim;
  double rope_theta;
  int64_t linear_num_key_heads;
  int64_t linear_num_value_heads;
  int64_t linear_head_dim;  // keys and values
  int64_t linear_conv_kernel_dim;
  int64_t num_experts;
  int64_t num_experts_per_tok;
  int64_t moe_intermediate_size;
  int64_t shared_expert_intermediate_size;
  int64_t max_position_embeddings;
  int64_t bos_token_id = -1;  // find_synth_model: of the stand-in tokenizer; −1: left out
  int64_t eos_token_id = -1;
};

// With options.num_layers applied.
[[nodiscard]] Result<SynthModel> find_synth_model(const SynthOptions& options);

[[nodiscard]] std::string synth_config_json(const SynthModel& model, const SynthOptions& options);
[[nodiscard]] std::vector<SynthTensor> plan_synth_tensors(const SynthModel& model,
                                                          const SynthOptions& options);

}  // namespace hotset
