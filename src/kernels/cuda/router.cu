// SPDX-License-Identifier: Apache-2.0
// One warp a token. Logits become integers of the same order, NaN as −∞, above 0. Whatever is below
// the top_k-th largest of the lanes' largest can't be chosen: few are left, and each of them counts
// how many of the others come before it.
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

// Up to kHeld · 32 experts and 32 choices: lane i gets choice i. `listed`, `chosen`: shared, of
// this warp, [kHeld · 32] and [32].
template <int kHeld>
__device__ __forceinline__ Choice choose_held(const float* row, int num_experts, int top_k,
                                              Choice* listed, Choice* chosen) {
  const int lane = static_cast<int>(threadIdx.x);
  uint32_t keys[kHeld];  // of experts lane, lane + 32, …; 0: no expert
  uint32_t most = 0u;
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int expert = lane + i * kWarp;
    keys[i] = expert < num_experts ? key_of(row[expert]) : 0u;
  }
#pragma unroll
  for (int i = 0; i < kHeld; ++i) most = max(most, keys[i]);
  int before = 0;
#pragma unroll
  for (int other = 0; other < kWarp; ++other) {
    const uint32_t theirs = __shfl_sync(kAllLanes, most, other);
    before += theirs > most || (theirs == most && other < lane) ? 1 : 0;
  }
  const uint32_t last = __ballot_sync(kAllLanes, before == top_k - 1);
  const uint32_t least = __shfl_sync(kAllLanes, most, __ffs(static_cast<int>(last)) - 1);
  int count = 0;  // in the order of experts
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const bool is_in = keys[i] >= least;
    const uint32_t lanes = __ballot_sync(kAllLanes, is_in);
    const int at = count + __popc(lanes & ((1u << lane) - 1u));
    if (is_in) listed[at] = {keys[i], static_cast<uint32_t>(lane + i * kWarp)};
    count += __popc(lanes);
  }
  __syncwarp();
  for (int c = lane; c < count; c += kWarp) {
    const Choice mine = listed[c];
    int rank = 0;
    for (int j = 0; j < count; ++j) {
      const uint32_t key = listed[j].key;
      rank += key > mine.key || (key == mine.key && j < c) ? 1 : 0;
    }
    if (rank < top_k) chosen[rank] = mine;
  }
  __syncwarp();
  return lane < top_k ? chosen[lane] : Choice{0u, 0u};
}

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

struct RouteArgs {
  int num_tokens;
  int num_experts;
  int top_k;
  bool normalize;
  const float* logits;
  const float* shared_logit;  // may be null
  int32_t* experts;
  float* weights;

  __device__ __forceinline__ int ranks() const {
    return shared_logit != nullptr ? top_k + 1 : top_k;
  }
};

// What the weights are divided by when it isn't their sum.
__device__ __forceinline__ float sum_of_all(const RouteArgs& args, const float* row, float top) {
  float total = 0.0f;
  for (int e = static_cast<int>(threadIdx.x); e < args.num_experts; e += kWarp) {
    total += expf(row[e] - top);
  }
  return warp_sum(total);
}

__device__ __forceinline__ void write_shared_choice(const RouteArgs& args, int64_t t, float logit) {
  if (threadIdx.x != 0 || args.shared_logit == nullptr) return;
  args.experts[t * args.ranks() + args.top_k] = args.num_experts;
  args.weights[t * args.ranks() + args.top_k] = sigmoid(logit);
}

template <int kHeld>
__global__ void __launch_bounds__(kWarp* kTokensPerBlock)
    route_held_kernel(const __grid_constant__ RouteArgs args) {
  __shared__ Choice listed[kTokensPerBlock][kHeld * kWarp];
  __shared__ Choice chosen[kTokensPerBlock][kWarp];
  start_next();
  wait_for_earlier();
  const int64_t t = static_cast<int64_t>(blockIdx.x) * kTokensPerBlock + threadIdx.y;
  if (t >= args.num_tokens) return;
  const int lane = static_cast<int>(threadIdx.x);
  const float* row = args.logits + t * args.num_experts;
  const float shared = args.shared_logit != nullptr ? args.shared_logit[t] : 0.0f;
  const Choice mine = choose_held<kHeld>(row, args.num_experts, args.top_k, listed[threadIdx.y],
                                         chosen[threadIdx.y]);
  const float top = logit_of(__shfl_sync(kAllLanes, mine.key, 0));
  const float weight = lane < args.top_k ? expf(logit_of(mine.key) - top) : 0.0f;
  float total = warp_sum(weight);
  if (!args.normalize) total = sum_of_all(args, row, top);
  if (lane < args.top_k) {
    args.experts[t * args.ranks() + lane] = static_cast<int32_t>(mine.index);
    args.weights[t * args.ranks() + lane] = weight / total;
  }
  write_shared_choice(args, t, shared);
}

// Lane i keeps choice i of each 32.
__global__ void __launch_bounds__(kWarp* kTokensPerBlock)
    route_any_kernel(const __grid_constant__ RouteArgs args) {
  start_next();
  wait_for_earlier();
  const int64_t t = static_cast<int64_t>(blockIdx.x) * kTokensPerBlock + threadIdx.y;
  if (t >= args.num_tokens) return;
  const int lane = static_cast<int>(threadIdx.x);
  const float* row = args.logits + t * args.num_experts;
  int32_t* ids = args.experts + t * args.ranks();
  float* w = args.weights + t * args.ranks();
  ReadLogits left(row, args.num_experts);

  float top = 0.0f, total = 0.0f;
  for (int begin = 0; begin < args.top_k; begin += kWarp) {
    const int count = min(kWarp, args.top_k - begin);
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
  if (!args.normalize) total = sum_of_all(args, row, top);
  for (int i = lane; i < args.top_k; i += kWarp) w[i] /= total;  // each lane what it wrote
  write_shared_choice(args, t, args.shared_logit != nullptr ? args.shared_logit[t] : 0.0f);
}

void route_tokens(Queue& queue, const RouterParams& params, const float* logits,
                  const float* shared_logit, int32_t* experts, float* weights) {
  const bool known = params.top_k > 0 && params.top_k <= params.num_experts;
  if (!is_known_shape(queue, known, "route")) return;
  const Grid grid{.x = blocks_for(params.num_tokens, kTokensPerBlock)};
  const Grid block{.x = kWarp, .y = kTokensPerBlock};
  const RouteArgs args{.num_tokens = static_cast<int>(params.num_tokens),
                       .num_experts = static_cast<int>(params.num_experts),
                       .top_k = static_cast<int>(params.top_k),
                       .normalize = params.normalize,
                       .logits = logits,
                       .shared_logit = shared_logit,
                       .experts = experts,
                       .weights = weights};
  const auto start = [&](auto* kernel) { HS_LAUNCH_EARLY(queue, grid, block, 0, kernel, args); };
  if (params.top_k > kWarp || params.num_experts > 16 * kWarp) {
    start(route_any_kernel);
  } else if (params.num_experts <= 4 * kWarp) {
    start(route_held_kernel<4>);
  } else {
    start(route_held_kernel<16>);
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
