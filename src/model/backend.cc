// SPDX-License-Identifier: Apache-2.0
#include "model/backend.h"

#include <algorithm>

namespace hotset {

Status Backend::read_heads(int64_t /*num_valid*/, std::span<LogitsHead> /*heads*/) {
  return fail("this processor picks no logits", ErrorKind::kUnsupported);
}

Status Backend::read_logits(int64_t /*row*/, float* /*logits*/) {
  return fail("this processor keeps no logits", ErrorKind::kUnsupported);
}

PagePoolShape page_pool_shape(const ModelConfig& config, bool mtp, int64_t value_bytes) {
  return {.num_layers = config.num_full_attention_layers() + (mtp ? 1 : 0),
          .num_key_value_heads = config.num_key_value_heads,
          .head_dim = config.head_dim,
          .value_bytes = value_bytes,
          .page_tokens = kPageTokens};
}

StatePoolShape state_pool_shape(const ModelConfig& config, int64_t num_slots) {
  return {.num_layers = config.num_linear_attention_layers(),
          .delta_floats = config.value_dim() * config.linear_key_head_dim,
          .conv_floats = (config.linear_conv_kernel_dim - 1) * config.conv_dim(),
          .num_slots = num_slots};
}

int64_t kv_bytes_per_token(const ModelConfig& config, int64_t value_bytes) {
  return config.num_full_attention_layers() * 2 * config.num_key_value_heads * config.head_dim *
         value_bytes;
}

int64_t widest_input(const ModelConfig& c) {
  return std::max({c.hidden_size, c.value_dim(), c.num_attention_heads * c.head_dim,
                   c.moe_intermediate_size, c.shared_expert_intermediate_size,
                   c.intermediate_size});
}

}  // namespace hotset
