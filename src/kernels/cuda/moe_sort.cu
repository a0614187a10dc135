// SPDX-License-Identifier: Apache-2.0
// What many tokens' experts need around the products: choices sorted by expert, SwiGLU, the join.
// All counts stay on the device, so that the host never waits for them.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matmul_device.cuh"
#include "kernels/cuda/moe_launch.h"

namespace hotset::cuda {
namespace {

constexpr int kSortThreads = 1024;
constexpr int kRowThreads = 256;

__device__ inline bool is_here(const SortArgs& args, int expert) {
  return expert >= 0 && expert < args.num_experts && args.addresses[expert].gate != nullptr;
}

struct SlotsAndChunks {
  int slots;
  int chunks;
};

// Sums over threads 0 … this one.
__device__ inline SlotsAndChunks running_sums(SlotsAndChunks own, SlotsAndChunks* shared) {
  const int thread = static_cast<int>(threadIdx.x);
  shared[thread] = own;
  __syncthreads();
  for (int step = 1; step < kSortThreads; step *= 2) {
    SlotsAndChunks sum = shared[thread];
    if (thread >= step) {
      sum.slots += shared[thread - step].slots;
      sum.chunks += shared[thread - step].chunks;
    }
    __syncthreads();
    shared[thread] = sum;
    __syncthreads();
  }
  return shared[thread];
}

// Lists the chunks of experts begin … end−1; counts[e] becomes e's first slot.
__device__ inline void list_chunks(const SortArgs& args, int begin, int end, SlotsAndChunks before,
                                   int* counts) {
  for (int e = begin; e < end; ++e) {
    const int count = counts[e];
    counts[e] = before.slots;
    for (int g = 0; g < args.num_groups; ++g) {
      if (e == args.first_expert[g]) args.to.chunk_ranges[2 * g] = before.chunks;
    }
    for (int done = 0; done < count; done += args.chunk_tokens) {
      args.to.chunks[before.chunks++] = {e, before.slots + done,
                                         min(args.chunk_tokens, count - done)};
    }
    before.slots += count;
    for (int g = 0; g < args.num_groups; ++g) {
      if (e == args.end_expert[g] - 1) args.to.chunk_ranges[2 * g + 1] = before.chunks;
    }
  }
}

__global__ void __launch_bounds__(kSortThreads) sort_kernel(const __grid_constant__ SortArgs args) {
  extern __shared__ int counts[];  // [num_experts]
  __shared__ SlotsAndChunks sums[kSortThreads];
  const int thread = static_cast<int>(threadIdx.x);
  for (int e = thread; e < args.num_experts; e += kSortThreads) counts[e] = 0;
  __syncthreads();
#pragma unroll 4
  for (int i = thread; i < args.num_pairs; i += kSortThreads) {
    const int expert = args.ids[i];
    if (is_here(args, expert)) atomicAdd(&counts[expert], 1);
  }
  __syncthreads();
  const int each = (args.num_experts + kSortThreads - 1) / kSortThreads;
  const int begin = min(thread * each, args.num_experts);
  const int end = min(begin + each, args.num_experts);
  SlotsAndChunks own = {0, 0};
  for (int e = begin; e < end; ++e) {
    own.slots += counts[e];
    own.chunks += (counts[e] + args.chunk_tokens - 1) / args.chunk_tokens;
  }
  const SlotsAndChunks through = running_sums(own, sums);
  list_chunks(args, begin, end, {through.slots - own.slots, through.chunks - own.chunks}, counts);
  __syncthreads();
#pragma unroll 4
  for (int i = thread; i < args.num_pairs; i += kSortThreads) {
    const int expert = args.ids[i];
    if (!is_here(args, expert)) continue;
    const int slot = atomicAdd(&counts[expert], 1);
    args.to.token_of[slot] = i / args.top_k;
    args.to.pair_of[slot] = i;
    args.to.expert_of[slot] = expert;
  }
  for (int i = sums[kSortThreads - 1].slots + thread; i < args.num_pairs; i += kSortThreads) {
    args.to.expert_of[i] = -1;
  }
}

__global__ void __launch_bounds__(kRowThreads)
    swiglu_kernel(const __grid_constant__ SwigluArgs args) {
  const int64_t row = blockIdx.x;
  const int expert = args.expert_of[row];
  if (expert < args.first_expert || expert >= args.end_expert) return;
  for (int c = static_cast<int>(threadIdx.x); c < args.width; c += kRowThreads) {
    const int64_t at = row * args.stride + c;
    args.gate[at] = silu_mul(args.gate[at], args.up[at]);
  }
}

__global__ void __launch_bounds__(kRowThreads)
    join_kernel(const int32_t* ids, const float* weights, const float* rows, const float* elsewhere,
                int top_k, int64_t hidden, float* y) {
  const int64_t token = blockIdx.x;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * kRowThreads + threadIdx.x;
  if (column >= hidden) return;
  float sum = 0;
#pragma unroll 4
  for (int k = 0; k < top_k; ++k) {
    const int64_t pair = token * top_k + k;
    const float* from = ids[pair] >= 0 ? rows : elsewhere;
    if (from != nullptr) sum = __fmaf_rn(weights[pair], from[pair * hidden + column], sum);
  }
  y[token * hidden + column] = sum;
}

}  // namespace

void sort_choices(Queue& queue, const SortArgs& args) {
  HS_LAUNCH(queue, Grid{1}, Grid{kSortThreads}, int64_t{4} * args.num_experts, sort_kernel, args);
}

void swiglu_rows(Queue& queue, const SwigluArgs& args) {
  HS_LAUNCH(queue, Grid{static_cast<unsigned>(args.num_rows)}, Grid{kRowThreads}, 0, swiglu_kernel,
            args);
}

void moe_join(Queue& queue, const MoeBatch& batch, const float* rows, const float* elsewhere,
              float* y) {
  if (batch.num_tokens == 0) return;
  const Grid grid{static_cast<unsigned>(batch.num_tokens), blocks_for(batch.hidden, kRowThreads),
                  1};
  HS_LAUNCH(queue, grid, Grid{kRowThreads}, 0, join_kernel, batch.expert_ids, batch.expert_weights,
            rows, elsewhere, batch.top_k, batch.hidden, y);
}

}  // namespace hotset::cuda
