// SPDX-License-Identifier: Apache-2.0
// What many tokens' experts need around the products: choices sorted by expert, SwiGLU, the join.
// All counts stay on the device, so that the host never waits for them.
#include "kernels/cuda/expert_exchange.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matmul_device.cuh"
#include "kernels/cuda/moe_launch.h"

namespace hotset::cuda {
namespace {

constexpr int kListThreads = 1024;
constexpr int kPairThreads = 256;
// Blocks of two warps: few tokens are joined on many multiprocessors, and rows in RAM come in runs
// of 512 bytes a warp.
constexpr int kJoinThreads = 64;
constexpr int kJoinAtOnce = 12;
constexpr int kRowThreads = 256;

__device__ inline bool is_here(const SortArgs& args, int expert) {
  return expert >= 0 && expert < args.num_experts && args.addresses[expert].gate != nullptr;
}

__global__ void __launch_bounds__(kPairThreads)
    count_kernel(const __grid_constant__ SortArgs args) {
  const int i = static_cast<int>(blockIdx.x) * kPairThreads + static_cast<int>(threadIdx.x);
  if (i >= args.num_pairs) return;
  const int expert = args.ids[i];
  if (is_here(args, expert)) atomicAdd(&args.counts[expert], 1);
}

struct SlotsAndChunks {
  int slots;
  int chunks;
};

__device__ inline SlotsAndChunks sums_in_warp(SlotsAndChunks sum, int lane) {
  for (int step = 1; step < kWarp; step *= 2) {
    const int slots = __shfl_up_sync(kAllLanes, sum.slots, step);
    const int chunks = __shfl_up_sync(kAllLanes, sum.chunks, step);
    if (lane >= step) {
      sum.slots += slots;
      sum.chunks += chunks;
    }
  }
  return sum;
}

// Sums over threads 0 … this one; those over all of them become the last of `shared`.
__device__ inline SlotsAndChunks running_sums(SlotsAndChunks own, SlotsAndChunks* shared) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  SlotsAndChunks sum = sums_in_warp(own, lane);
  if (lane == kWarp - 1) shared[warp] = sum;
  __syncthreads();
  if (warp == 0) shared[lane] = sums_in_warp(shared[lane], lane);
  __syncthreads();
  if (warp > 0) {
    sum.slots += shared[warp - 1].slots;
    sum.chunks += shared[warp - 1].chunks;
  }
  return sum;
}

// Lists the chunks of experts begin … end−1; counts[e] becomes e's first slot.
__device__ inline void list_chunks(const SortArgs& args, int begin, int end,
                                   SlotsAndChunks before) {
  for (int e = begin; e < end; ++e) {
    const int count = args.counts[e];
    args.counts[e] = before.slots;
    for (int g = 0; g < args.num_groups; ++g) {
      if (e == args.first_expert[g]) args.to.chunk_ranges[2 * g] = before.chunks;
    }
    for (int done = 0; done < count; done += kChunkTokens) {
      args.to.chunks[before.chunks++] = {e, before.slots + done, min(kChunkTokens, count - done)};
    }
    before.slots += count;
    for (int g = 0; g < args.num_groups; ++g) {
      if (e == args.end_expert[g] - 1) args.to.chunk_ranges[2 * g + 1] = before.chunks;
    }
  }
}

__global__ void __launch_bounds__(kListThreads) list_kernel(const __grid_constant__ SortArgs args) {
  static_assert(kListThreads == kWarp * kWarp);
  __shared__ SlotsAndChunks sums[kWarp];
  const int thread = static_cast<int>(threadIdx.x);
  const int each = (args.num_experts + kListThreads - 1) / kListThreads;
  const int begin = min(thread * each, args.num_experts);
  const int end = min(begin + each, args.num_experts);
  SlotsAndChunks own = {0, 0};
  for (int e = begin; e < end; ++e) {
    own.slots += args.counts[e];
    own.chunks += (args.counts[e] + kChunkTokens - 1) / kChunkTokens;
  }
  const SlotsAndChunks through = running_sums(own, sums);
  list_chunks(args, begin, end, {through.slots - own.slots, through.chunks - own.chunks});
  for (int i = sums[kWarp - 1].slots + thread; i < args.num_pairs; i += kListThreads) {
    args.to.expert_of[i] = -1;
  }
}

__global__ void __launch_bounds__(kPairThreads)
    place_kernel(const __grid_constant__ SortArgs args) {
  const int i = static_cast<int>(blockIdx.x) * kPairThreads + static_cast<int>(threadIdx.x);
  if (i >= args.num_pairs) return;
  const int expert = args.ids[i];
  if (!is_here(args, expert)) return;
  const int slot = atomicAdd(&args.counts[expert], 1);
  args.to.token_of[slot] = i / args.top_k;
  args.to.pair_of[slot] = i;
  args.to.expert_of[slot] = expert;
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

// A vector's columns of choices first … first+kJoinAtOnce−1: all loads before the first sum.
template <typename Vector>
__device__ inline void join_some(const JoinArgs& args, int64_t token, int64_t column, int first,
                                 float (&sum)[sizeof(Vector) / 4]) {
  Vector values[kJoinAtOnce];
  bool counts[kJoinAtOnce];
#pragma unroll
  for (int i = 0; i < kJoinAtOnce; ++i) {
    const int64_t pair = token * args.top_k + first + i;
    const float* from = nullptr;
    int64_t stride = args.hidden;
    if (first + i < args.top_k) {
      const bool here = args.ids[pair] >= 0;
      from = here ? args.rows : args.elsewhere;
      if (here) stride = args.ld_rows;
    }
    counts[i] = from != nullptr;
    if (counts[i]) values[i] = *reinterpret_cast<const Vector*>(from + pair * stride + column);
  }
#pragma unroll
  for (int i = 0; i < kJoinAtOnce; ++i) {
    if (!counts[i]) continue;
    const float weight = args.weights[token * args.top_k + first + i];
    const auto* value = reinterpret_cast<const float*>(&values[i]);
#pragma unroll
    for (int j = 0; j < static_cast<int>(sizeof(Vector) / 4); ++j) {
      sum[j] = __fmaf_rn(weight, value[j], sum[j]);
    }
  }
}

template <typename Vector>
__global__ void __launch_bounds__(kJoinThreads) join_kernel(const __grid_constant__ JoinArgs args) {
  constexpr int kColumns = sizeof(Vector) / 4;
  start_next();
  wait_for_earlier();
  if (args.exchange.flags != nullptr) await_reply(args.exchange);
  const int64_t token = blockIdx.x;
  const int64_t column = kColumns * (static_cast<int64_t>(blockIdx.y) * kJoinThreads + threadIdx.x);
  if (column >= args.width) return;
  alignas(16) float sum[kColumns] = {};
  for (int k = 0; k < args.top_k; k += kJoinAtOnce) {
    join_some<Vector>(args, token, column, k, sum);
  }
  *reinterpret_cast<Vector*>(args.y + token * args.hidden + column) =
      *reinterpret_cast<const Vector*>(sum);
}

}  // namespace

void sort_choices(Queue& queue, const SortArgs& args) {
  queue.note(queue.runtime.fill(args.counts, 0, int64_t{4} * args.num_experts, queue.stream));
  const Grid pairs{blocks_for(args.num_pairs, kPairThreads)};
  HS_LAUNCH(queue, pairs, Grid{kPairThreads}, 0, count_kernel, args);
  HS_LAUNCH(queue, Grid{1}, Grid{kListThreads}, 0, list_kernel, args);
  HS_LAUNCH(queue, pairs, Grid{kPairThreads}, 0, place_kernel, args);
}

void swiglu_rows(Queue& queue, const SwigluArgs& args) {
  HS_LAUNCH(queue, Grid{static_cast<unsigned>(args.num_rows)}, Grid{kRowThreads}, 0, swiglu_kernel,
            args);
}

void join_columns(Queue& queue, const JoinArgs& args) {
  if (args.num_tokens == 0) return;
  const bool by_four = (args.hidden | args.ld_rows | args.width) % 4 == 0 &&
                       is_aligned(args.rows, 16) && is_aligned(args.elsewhere, 16) &&
                       is_aligned(args.y, 16);
  const Grid grid{static_cast<unsigned>(args.num_tokens),
                  blocks_for(args.width, (by_four ? 4 : 1) * kJoinThreads), 1};
  if (by_four) {
    HS_LAUNCH_EARLY(queue, grid, Grid{kJoinThreads}, 0, join_kernel<float4>, args);
  } else {
    HS_LAUNCH_EARLY(queue, grid, Grid{kJoinThreads}, 0, join_kernel<float>, args);
  }
}

void moe_join(Queue& queue, const MoeBatch& batch, const float* rows, const float* elsewhere,
              float* y) {
  join_columns(queue, join_args(batch, rows, elsewhere, y));
}

void join_replies(Queue& queue, const MoeBatch& batch, const float* rows,
                  const ExpertExchange& exchange, float* y) {
  JoinArgs args = join_args(batch, rows, exchange.rows, y);
  args.exchange = exchange;
  join_columns(queue, args);
}

}  // namespace hotset::cuda
