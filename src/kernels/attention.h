// SPDX-License-Identifier: Apache-2.0
// Gated full attention around its projections: the query/gate split, the paged KV store, and causal
// grouped-query attention over the pages.
//
//   out[t, h, :] = Σ_p softmax_p( scale · q[t, h, :]·K[p, h', :] ) · V[p, h', :]
//   p = 0 … first_position + t,   h' = h / (num_heads / num_kv_heads)
//
// Softmax is online and fp32. Positions are taken in fixed tiles of kAttentionTile inside fixed
// ranges of kAttentionRange that are merged in order, always counted from position 0. A token's
// result is therefore bitwise the same whether it comes alone, in a chunk or in one long prefill,
// and on any number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hotset {

namespace cpu {
struct Queue;
}

inline constexpr int64_t kAttentionTile = 16;
inline constexpr int64_t kAttentionRange = 512;

enum class KvType : uint8_t { kF32, kBF16, kF16 };

[[nodiscard]] int64_t kv_type_bytes(KvType type);

// The pages of one sequence in one layer. A page holds K [num_kv_heads, page_tokens, head_dim],
// then V of the same shape. Position p lives in pages[p / page_tokens] at p % page_tokens.
struct KvPages {
  KvType type = KvType::kBF16;
  std::byte* const* pages = nullptr;  // each at least 4-byte aligned
  int64_t page_tokens = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;

  [[nodiscard]] int64_t plane_bytes() const {  // K or V of a page
    return num_kv_heads * page_tokens * head_dim * kv_type_bytes(type);
  }
  [[nodiscard]] int64_t page_bytes() const { return 2 * plane_bytes(); }
};

struct QueryGateParams {
  int64_t num_tokens = 0;
  int64_t num_heads = 0;
  int64_t head_dim = 0;
};

// q_proj's output [num_tokens, num_heads, 2·head_dim], query first in each head, becomes
// q [num_tokens, num_heads, head_dim] and gate of the same shape. Nothing may alias.
void split_query_gate(cpu::Queue& queue, const QueryGateParams& params, const float* query_gate,
                      float* q, float* gate);

// Stores k, v [num_tokens, num_kv_heads, head_dim] at positions first_position …, rounded to
// nearest even. k has its norm and rope already.
void kv_append(cpu::Queue& queue, const KvPages& kv, int64_t first_position, int64_t num_tokens,
               const float* k, const float* v);

struct AttentionParams {
  int64_t num_heads = 0;       // num_attention_heads, a multiple of kv.num_kv_heads
  int64_t first_position = 0;  // of token 0 of this call
  int64_t num_tokens = 0;
  float scale = 1.0f;  // head_dim^-½
};

// Floats of scratch that attention() needs; grows with num_tokens, first_position and threads, so
// the largest call of a plan gives the size for all.
[[nodiscard]] int64_t attention_workspace_floats(const cpu::Queue& queue,
                                                 const AttentionParams& params, const KvPages& kv);

// q, out: [num_tokens, num_heads, head_dim]; out may be q. Positions 0 … first_position +
// num_tokens − 1 have been appended. workspace: attention_workspace_floats() floats.
void attention(cpu::Queue& queue, const AttentionParams& params, const float* q, const KvPages& kv,
               float* out, float* workspace);

}  // namespace hotset
