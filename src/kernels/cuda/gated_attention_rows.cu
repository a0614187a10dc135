// SPDX-License-Identifier: Apache-2.0
// Before and after the scores: norm, rope and the pages; the merge of partial results.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/cuda/gated_attention_parts.cuh"

namespace hotset::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kMergeThreads = 1024;

__device__ __forceinline__ void store_value(KvType type, std::byte* row, int i, float x) {
  if (type == KvType::kF32) {
    reinterpret_cast<float*>(row)[i] = x;
  } else if (type == KvType::kBF16) {
    reinterpret_cast<__nv_bfloat16*>(row)[i] = __float2bfloat16_rn(x);
  } else {
    reinterpret_cast<__half*>(row)[i] = __float2half_rn(x);
  }
}

// A warp: calls put(i, x) with each element of rope(rms_norm(from)).
template <typename Put>
__device__ __forceinline__ void norm_and_turn(const AttentionTask& task, const float* from,
                                              const float* norm, const float* cos_sin,
                                              const Put& put) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float total = 0.0f;
  for (int i = lane; i < task.dim; i += kWarp) total = fmaf(from[i], from[i], total);
  const float inverse = 1.0f / sqrtf(warp_sum(total) / static_cast<float>(task.dim) + task.eps);
  const auto normed = [&](int i) { return from[i] * inverse * (1.0f + norm[i]); };
  const int half = task.rotary / 2;
  for (int i = lane; i < half; i += kWarp) {
    const float a = normed(i), b = normed(half + i);
    const float c = cos_sin[i], s = cos_sin[half + i];
    put(i, a * c - b * s);
    put(half + i, b * c + a * s);
  }
  for (int i = task.rotary + lane; i < task.dim; i += kWarp) put(i, normed(i));
}

// Block (x, y): four heads of one row of sequence y, a warp a head. Heads: the queries, then the
// KV heads with their keys and values.
__global__ void __launch_bounds__(kThreads) attention_rows_kernel(AttentionTask task) {
  const SequenceRows rows = task.sequences[blockIdx.y];
  const int blocks = (task.heads + task.kv_heads + kWarps - 1) / kWarps;
  const int t = static_cast<int>(blockIdx.x) / blocks;
  const int h =
      static_cast<int>(blockIdx.x) % blocks * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  if (t >= rows.num_tokens || h >= task.heads + task.kv_heads) return;
  const int64_t at = rows.token_begin + t;
  const float* cos_sin = task.cos_sin + at * task.rotary;
  if (h < task.heads) {
    const int64_t row = at * task.heads + h;
    float* q = task.out + row * task.dim;
    norm_and_turn(task, task.query_gate + row * 2 * task.dim, task.q_norm, cos_sin,
                  [&](int i, float x) { q[i] = x; });
    return;
  }
  const int kv_head = h - task.heads;
  const int64_t row = (at * task.kv_heads + kv_head) * task.dim;
  std::byte* k = key_address(task, rows, rows.first_position + t, kv_head);
  std::byte* v = k + task.plane_bytes;
  norm_and_turn(task, task.key + row, task.k_norm, cos_sin,
                [&](int i, float x) { store_value(task.type, k, i, x); });
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < task.dim; i += kWarp) {
    store_value(task.type, v, i, task.value[row + i]);
  }
}

// Of each split its weight against the largest top, to shared memory by the first warp; returns the
// sum of weights. Splits behind the last one that saw anything were not written and don't count.
__device__ __forceinline__ float weigh_splits(const AttentionTask& task, const float2* weights,
                                              float* factors, int& used) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float top = -INFINITY;
  int last = 0;
  for (int s = lane; s < task.splits; s += kWarp) {
    const float2 w = weights[s];
    if (w.y > 0.0f) top = fmaxf(top, w.x), last = s + 1;
  }
  top = warp_max(top);
  used = __reduce_max_sync(kAllLanes, last);
  float total = 0.0f;
  for (int s = lane; s < used; s += kWarp) {
    const float2 w = weights[s];
    const float factor = w.y > 0.0f ? exp2f(w.x - top) : 0.0f;
    total = fmaf(factor, w.y, total);
    if (threadIdx.x < kWarp) factors[s] = factor;
  }
  return warp_sum(total);
}

// Block (x, y): one row (token, head) of sequence y. Groups of threads take a column each over
// every n-th split; the first group adds the groups up.
__global__ void __launch_bounds__(kMergeThreads) attention_merge_kernel(AttentionTask task) {
  extern __shared__ float factors[];  // of each split, then [group][dim]
  start_next();
  wait_for_earlier();
  const SequenceRows rows = task.sequences[blockIdx.y];
  if (static_cast<int>(blockIdx.x) >= rows.num_tokens * task.heads) return;
  const int64_t row = static_cast<int64_t>(rows.token_begin) * task.heads + blockIdx.x;
  const int groups = kMergeThreads / task.dim;
  const int group = static_cast<int>(threadIdx.x) / task.dim;
  const int column = static_cast<int>(threadIdx.x) % task.dim;
  const float gate = group == 0 ? gate_of(task, row, column) : 0.0f;  // ahead of what follows
  int used = 0;
  const float total = weigh_splits(task, task.weights + row * task.splits, factors, used);
  __syncthreads();
  float* parts = factors + task.splits;
  if (group < groups) {
    const float* sums = task.sums + row * task.splits * task.dim + column;
    float sum = 0.0f;
#pragma unroll 8
    for (int s = group; s < used; s += groups) {
      sum = fmaf(factors[s], sums[static_cast<int64_t>(s) * task.dim], sum);
    }
    parts[group * task.dim + column] = sum;
  }
  __syncthreads();
  if (group != 0) return;
  float sum = 0.0f;
  for (int g = 0; g < groups; ++g) sum += parts[g * task.dim + column];
  task.out[row * task.dim + column] = sum / total * gate;
}

}  // namespace

void attention_rows(Queue& queue, const AttentionTask& task, const StepBatch& batch) {
  const unsigned blocks = blocks_for(task.heads + task.kv_heads, kWarps);
  const Grid grid{.x = static_cast<unsigned>(batch.max_tokens) * blocks,
                  .y = static_cast<unsigned>(batch.num_sequences)};
  HS_LAUNCH(queue, grid, Grid{.x = kThreads}, 0, attention_rows_kernel, task);
}

void attention_merge(Queue& queue, const AttentionTask& task, const StepBatch& batch) {
  const Grid grid{.x = static_cast<unsigned>(batch.max_tokens) * static_cast<unsigned>(task.heads),
                  .y = static_cast<unsigned>(batch.num_sequences)};
  HS_LAUNCH_EARLY(queue, grid, Grid{.x = kMergeThreads},
                  (task.splits + kMergeThreads) * static_cast<int64_t>(sizeof(float)),
                  attention_merge_kernel, task);
}

}  // namespace hotset::cuda
