// SPDX-License-Identifier: Apache-2.0
// Which experts a token goes to.
//
//   p = softmax(logits) over all experts;  the top_k largest p, the lower index first on ties;
//   weights = p, divided by their sum when normalize (norm_topk_prob).
#pragma once

#include <cstdint>

namespace hotset {

namespace cpu {
struct Queue;
}

struct RouterParams {
  int64_t num_tokens = 0;
  int64_t num_experts = 0;
  int64_t top_k = 0;  // num_experts_per_tok, 1 … num_experts
  bool normalize = true;
};

// logits: [T, num_experts]; experts, weights: [T, top_k], by falling weight. Requires finite logits
// (a NaN is never chosen before a number; the ids stay valid and distinct in any case).
void route(cpu::Queue& queue, const RouterParams& params, const float* logits, int32_t* experts,
           float* weights);

}  // namespace hotset
