// SPDX-License-Identifier: Apache-2.0
// The chosen are found on the logits themselves: their order is the order of the probabilities, and
// is exact where rounded probabilities would tie.
#include "kernels/router.h"

#include <cmath>
#include <limits>

#include "base/check.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_kernels.h"

namespace hotset {
namespace {

// The top_k largest by insertion into a sorted list; equal values keep the earlier index in front.
void pick_largest(int64_t num_experts, int64_t top_k, const float* logits, int32_t* experts,
                  float* values) {
  int64_t held = 0;
  for (int64_t e = 0; e < num_experts; ++e) {
    const float value = std::isnan(logits[e]) ? -std::numeric_limits<float>::infinity() : logits[e];
    if (held == top_k && !(value > values[held - 1])) continue;
    int64_t at = held < top_k ? held++ : top_k - 1;
    for (; at > 0 && value > values[at - 1]; --at) {
      values[at] = values[at - 1];
      experts[at] = experts[at - 1];
    }
    values[at] = value;
    experts[at] = static_cast<int32_t>(e);
  }
}

void route_rows(cpu::Queue& queue, const RouterParams& params, const float* logits,
                const float* shared_logit, int32_t* experts, float* weights) {
  HS_CHECK(params.top_k > 0 && params.top_k <= params.num_experts, "top {} of {} experts",
           params.top_k, params.num_experts);
  const cpu::RowKernels& kernels = cpu::row_kernels(queue.isa);
  const int64_t k = params.top_k;
  const int64_t stride = shared_logit != nullptr ? k + 1 : k;
  cpu::for_shares(
      queue, params.num_tokens, 4 * params.num_experts, 1, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          const float* row = logits + t * params.num_experts;
          float* w = weights + t * stride;
          pick_largest(params.num_experts, k, row, experts + t * stride, w);
          const float top = w[0];
          float total = params.normalize ? 0.0f : kernels.softmax_sum(params.num_experts, top, row);
          for (int64_t i = 0; i < k; ++i) {
            w[i] = std::exp(w[i] - top);
            if (params.normalize) total += w[i];
          }
          for (int64_t i = 0; i < k; ++i) w[i] /= total;
          if (shared_logit == nullptr) continue;
          experts[t * stride + k] = static_cast<int32_t>(params.num_experts);
          w[k] = 1.0f / (1.0f + std::exp(-shared_logit[t]));
        }
      });
}

}  // namespace

void route(cpu::Queue& queue, const RouterParams& params, const float* logits, int32_t* experts,
           float* weights) {
  route_rows(queue, params, logits, nullptr, experts, weights);
}

void route_with_shared(cpu::Queue& queue, const RouterParams& params, const float* logits,
                       const float* shared_logit, int32_t* experts, float* weights) {
  route_rows(queue, params, logits, shared_logit, experts, weights);
}

}  // namespace hotset
