// SPDX-License-Identifier: Apache-2.0
// One warp a token. Logits become integers of the same order, NaN as −∞, above 0; a round takes the
// largest of a warp and of those the lowest index, by two reductions, and sets it to 0.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/shape_check.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/router.h"

namespace hotset {
namespace cuda {
namespace {

constexpr int kTokensPerBlock = 2;

// Rising with the logit; −0 as +0, NaN as −∞.
__device__ __forceinline__ uint32_t key_of(float logit) {
  if (isnan(logit)) logit = -INFINITY;
  const uint32_t bits = __float_as_uint(logit + 0.0f);
  return (bits >> 31) != 0u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float logit_of(uint32_t key) {
  return __uint_as_float((key >> 31) != 0u ? key & 0x7fffffffu : ~key);
}

struct Choice {
  uint32_t key;
  uint32_t index;
};

// The logits of a token as one lane sees them: those of experts lane, lane + 32, …, in registers,
// and which of them is the next.
template <int kHeld>
struct HeldLogits {
  uint32_t keys[kHeld];  // 0: taken, or no expert
  uint32_t lane;
  Choice best;

  __device__ __forceinline__ HeldLogits(const float* row, int num_experts) : lane(threadIdx.x) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int expert = static_cast<int>(lane) + i * kWarp;
      keys[i] = expert < num_experts ? key_of(row[expert]) : 0u;
    }
    find_best();
  }
  // The largest key and of those the lowest index, in a few steps of pairs.
  __device__ __forceinline__ void find_best() {
    uint32_t most[kHeld];
#pragma unroll
    for (int i = 0; i < kHeld; ++i) most[i] = keys[i];
#pragma unroll
    for (int half = kHeld / 2; half > 0; half /= 2) {
#pragma unroll
      for (int i = 0; i < half; ++i) most[i] = max(most[i], most[i + half]);
    }
    uint32_t holders = 0u;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) holders |= keys[i] == most[0] ? 1u << i : 0u;
    best = {most[0], lane + (static_cast<uint32_t>(__ffs(static_cast<int>(holders))) - 1u) * kWarp};
  }
  __device__ __forceinline__ Choice take() {
    const uint32_t key = __reduce_max_sync(kAllLanes, best.key);
    const uint32_t index = __reduce_min_sync(kAllLanes, best.key == key ? best.index : 0xffffffffu);
    if (index == best.index) {
#pragma unroll
      for (int i = 0; i < kHeld; ++i) keys[i] = index == lane + i * kWarp ? 0u : keys[i];
      find_best();
    }
    return {key, index};
  }
};

// Any number of experts, read again in each round: the first after the last choice.
struct ReadLogits {
  const float* row;
  int num_experts;
  Choice last = {0xffffffffu, 0u};

  __device__ __forceinline__ ReadLogits(const float* logits, int experts)
      : row(logits), num_experts(experts) {}
  __device__ __forceinline__ Choice take() {
    Choice best = {0u, 0xffffffffu};
    for (int e = static_cast<int>(threadIdx.x); e < num_experts; e += kWarp) {
      const auto index = static_cast<uint32_t>(e);
      const uint32_t key = key_of(row[e]);
      const bool is_left = key < last.key || (key == last.key && index > last.index);
      if (is_left && key > best.key) best = {key, index};
    }
    const uint32_t key = __reduce_max_sync(kAllLanes, best.key);
    const uint32_t index = __reduce_min_sync(kAllLanes, best.key == key ? best.index : 0xffffffffu);
    last = {key, index};
    return last;
  }
};

// Lane i keeps choice i of each 32.
template <typename Logits>
__global__ void __launch_bounds__(kWarp* kTokensPerBlock)
    route_kernel(int num_tokens, int num_experts, int top_k, bool normalize, const float* logits,
                 const float* shared_logit, int32_t* experts, float* weights) {
  start_next();
  wait_for_earlier();
  const int64_t t = static_cast<int64_t>(blockIdx.x) * kTokensPerBlock + threadIdx.y;
  if (t >= num_tokens) return;
  const int lane = static_cast<int>(threadIdx.x);
  const int stride = shared_logit != nullptr ? top_k + 1 : top_k;
  const float* row = logits + t * num_experts;
  int32_t* ids = experts + t * stride;
  float* w = weights + t * stride;
  const float shared = shared_logit != nullptr ? shared_logit[t] : 0.0f;
  Logits left(row, num_experts);

  float top = 0.0f, total = 0.0f;
  for (int begin = 0; begin < top_k; begin += kWarp) {
    const int count = min(kWarp, top_k - begin);
    Choice mine = {0u, 0u};
    for (int i = 0; i < count; ++i) {
      const Choice choice = left.take();
      if (begin + i == 0) top = logit_of(choice.key);
      if (i == lane) mine = choice;
    }
    const float weight = lane < count ? expf(logit_of(mine.key) - top) : 0.0f;
    total += warp_sum(weight);
    if (lane < count) {
      ids[begin + lane] = static_cast<int32_t>(mine.index);
      w[begin + lane] = weight;
    }
  }
  if (!normalize) {
    total = 0.0f;
    for (int e = lane; e < num_experts; e += kWarp) total += expf(row[e] - top);
    total = warp_sum(total);
  }
  for (int i = lane; i < top_k; i += kWarp) w[i] /= total;  // each lane what it wrote
  if (lane == 0 && shared_logit != nullptr) {
    ids[top_k] = num_experts;
    w[top_k] = sigmoid(shared);
  }
}

void route_tokens(Queue& queue, const RouterParams& params, const float* logits,
                  const float* shared_logit, int32_t* experts, float* weights) {
  const bool known = params.top_k > 0 && params.top_k <= params.num_experts;
  if (!is_known_shape(queue, known, "route")) return;
  const Grid grid{.x = blocks_for(params.num_tokens, kTokensPerBlock)};
  const Grid block{.x = kWarp, .y = kTokensPerBlock};
  const auto start = [&](auto* kernel) {
    HS_LAUNCH_EARLY(queue, grid, block, 0, kernel, params.num_tokens, params.num_experts,
                    params.top_k, params.normalize, logits, shared_logit, experts, weights);
  };
  if (params.num_experts <= 4 * kWarp) {
    start(route_kernel<HeldLogits<4>>);
  } else if (params.num_experts <= 16 * kWarp) {
    start(route_kernel<HeldLogits<16>>);
  } else {
    start(route_kernel<ReadLogits>);
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
