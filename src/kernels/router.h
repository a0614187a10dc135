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
namespace cuda {
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
void route(cuda::Queue& queue, const RouterParams& params, const float* logits, int32_t* experts,
           float* weights);

// As route, with the shared expert as one more choice, summed last: rank top_k is expert
// num_experts with weight σ(shared_logit[t]).  shared_logit: [T]; experts, weights: [T, top_k + 1].
void route_with_shared(cpu::Queue& queue, const RouterParams& params, const float* logits,
                       const float* shared_logit, int32_t* experts, float* weights);
void route_with_shared(cuda::Queue& queue, const RouterParams& params, const float* logits,
                       const float* shared_logit, int32_t* experts, float* weights);

}  // namespace hotset
