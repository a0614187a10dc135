// SPDX-License-Identifier: Apache-2.0
// One warp a token. A round finds the largest logit that comes after the last choice in the order
// (falling value, rising index), so nothing has to be marked as taken. NaN counts as −∞.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/shape_check.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/router.h"

namespace hotset {
namespace cuda {
namespace {

constexpr int kTokensPerBlock = 4;

struct Choice {
  float value;
  int index;
};

__device__ __forceinline__ bool is_before(const Choice& a, const Choice& b) {
  return a.value > b.value || (a.value == b.value && a.index < b.index);
}

__device__ __forceinline__ Choice first_of_warp(Choice mine) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const Choice other{__shfl_xor_sync(kAllLanes, mine.value, step),
                       __shfl_xor_sync(kAllLanes, mine.index, step)};
    if (is_before(other, mine)) mine = other;
  }
  return mine;
}

__device__ __forceinline__ float orderly(float logit) {
  return isnan(logit) ? -INFINITY : logit;
}

// The logits of a token as one lane sees them: those of experts lane, lane + 32, …
// kHeld > 0: up to kHeld in registers; 0: read again in each round.
template <int kHeld>
struct LaneLogits {
  const float* row;
  int count;
  int lane;
  float held[kHeld > 0 ? kHeld : 1];

  __device__ LaneLogits(const float* logits, int num_experts)
      : row(logits), count(num_experts), lane(static_cast<int>(threadIdx.x)) {
    if constexpr (kHeld > 0) {
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        held[i] = lane + i * kWarp < count ? row[lane + i * kWarp] : -INFINITY;
      }
    }
  }
  template <typename Body>
  __device__ __forceinline__ void each(const Body& body) const {
    if constexpr (kHeld > 0) {
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        if (lane + i * kWarp < count) body(held[i], lane + i * kWarp);
      }
    } else {
      for (int e = lane; e < count; e += kWarp) body(row[e], e);
    }
  }
  __device__ __forceinline__ Choice next_after(const Choice& last) const {
    Choice best{-INFINITY, 0x7fffffff};
    each([&](float logit, int expert) {
      const Choice candidate{orderly(logit), expert};
      if (is_before(last, candidate) && is_before(candidate, best)) best = candidate;
    });
    return first_of_warp(best);
  }
};

template <int kHeld>
__global__ void __launch_bounds__(kWarp* kTokensPerBlock)
    route_kernel(int num_tokens, int num_experts, int top_k, bool normalize, const float* logits,
                 const float* shared_logit, int32_t* experts, float* weights) {
  const int64_t t = static_cast<int64_t>(blockIdx.x) * kTokensPerBlock + threadIdx.y;
  if (t >= num_tokens) return;
  const int lane = static_cast<int>(threadIdx.x);
  const int stride = shared_logit != nullptr ? top_k + 1 : top_k;
  int32_t* ids = experts + t * stride;
  float* w = weights + t * stride;
  const LaneLogits<kHeld> mine(logits + t * num_experts, num_experts);

  Choice last{INFINITY, -1};
  float top = 0.0f, total = 0.0f;
  for (int i = 0; i < top_k; ++i) {
    last = mine.next_after(last);
    if (i == 0) top = last.value;
    const float weight = expf(last.value - top);
    if (normalize) total += weight;
    if (lane == 0) {
      ids[i] = last.index;
      w[i] = weight;
    }
  }
  if (!normalize) {
    mine.each([&](float logit, int) { total += expf(logit - top); });
    total = warp_sum(total);
  }
  __syncwarp();
  for (int i = lane; i < top_k; i += kWarp) w[i] /= total;
  if (lane == 0 && shared_logit != nullptr) {
    ids[top_k] = num_experts;
    w[top_k] = sigmoid(shared_logit[t]);
  }
}

void route_tokens(Queue& queue, const RouterParams& params, const float* logits,
                  const float* shared_logit, int32_t* experts, float* weights) {
  const bool known = params.top_k > 0 && params.top_k <= params.num_experts;
  if (!is_known_shape(queue, known, "route")) return;
  const Grid grid{.x = blocks_for(params.num_tokens, kTokensPerBlock)};
  const Grid block{.x = kWarp, .y = kTokensPerBlock};
  const auto start = [&](auto* kernel) {
    HS_LAUNCH(queue, grid, block, 0, kernel, params.num_tokens, params.num_experts, params.top_k,
              params.normalize, logits, shared_logit, experts, weights);
  };
  if (params.num_experts <= 4 * kWarp) {
    start(route_kernel<4>);
  } else if (params.num_experts <= 16 * kWarp) {
    start(route_kernel<16>);
  } else {
    start(route_kernel<0>);
  }
}

}  // namespace
}  // namespace cuda

void route(cuda::Queue& queue, const RouterParams& params, const float* logits, int32_t* experts,
           float* weights) {
  cuda::route_tokens(queue, params, logits, nullptr, experts, weights);
}

void route_with_shared(cuda::Queue& queue, const RouterParams& params, const float* logits,
                       const float* shared_logit, int32_t* experts, float* weights) {
  cuda::route_tokens(queue, params, logits, shared_logit, experts, weights);
}

}  // namespace hotset
