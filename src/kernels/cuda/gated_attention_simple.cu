// SPDX-License-Identifier: Apache-2.0
// Attention for shapes without a kernel of their own, in fp32: a warp a row (token, head) and
// split. Of 32 positions at a time each lane scores one; then each lane adds columns of V.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "kernels/cuda/gated_attention_parts.cuh"

namespace hotset::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kMaxPerLane = kMaxAttentionDim / kWarp;  // columns

template <KvType kType>
__device__ __forceinline__ float value_at(const std::byte* row, int i) {
  if constexpr (kType == KvType::kF32) return reinterpret_cast<const float*>(row)[i];
  if constexpr (kType == KvType::kBF16) {
    return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(row)[i]);
  }
  return __half2float(reinterpret_cast<const __half*>(row)[i]);
}

// The state of a row's softmax over the positions so far.
struct Running {
  float top = -INFINITY;
  float total = 0.0f;
};

template <KvType kType>
__device__ __forceinline__ float score(const AttentionTask& task, const float* q,
                                       const std::byte* k) {
  float sum = 0.0f;
  for (int i = 0; i < task.dim; ++i) sum = fmaf(q[i], value_at<kType>(k, i), sum);
  return sum * task.scale;
}

// One warp: 32 positions from `begin`, those before `end`. acc[c]: column lane + 32c.
template <KvType kType>
__device__ __forceinline__ void attend(const AttentionTask& task, const SequenceRows& rows,
                                       const float* q, int kv_head, int64_t begin, int64_t end,
                                       Running& running, float (&acc)[kMaxPerLane]) {
  const int lane = static_cast<int>(threadIdx.x);
  const int64_t position = begin + lane;
  const std::byte* k = position < end ? key_address(task, rows, position, kv_head) : nullptr;
  const float x = k != nullptr ? score<kType>(task, q, k) : -INFINITY;
  const float top = fmaxf(running.top, warp_max(x));
  const float keep = running.total > 0.0f ? exp2f(running.top - top) : 0.0f;
  const float weight = k != nullptr ? exp2f(x - top) : 0.0f;
  running = {top, running.total * keep + warp_sum(weight)};
#pragma unroll
  for (int c = 0; c < kMaxPerLane; ++c) acc[c] *= keep;
  const int count = static_cast<int>(min(end - begin, static_cast<int64_t>(kWarp)));
  for (int j = 0; j < count; ++j) {
    const float w = __shfl_sync(kAllLanes, weight, j);
    const std::byte* v = key_address(task, rows, begin + j, kv_head) + task.plane_bytes;
#pragma unroll
    for (int c = 0; c < kMaxPerLane; ++c) {
      const int i = lane + c * kWarp;
      if (i < task.dim) acc[c] = fmaf(w, value_at<kType>(v, i), acc[c]);
    }
  }
}

// Block (x, y, z): four rows of sequence y, split z.
template <KvType kType>
__global__ void __launch_bounds__(kWarp* kWarps) attention_simple_kernel(AttentionTask task) {
  const SequenceRows rows = task.sequences[blockIdx.y];
  const int r = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.y);
  if (r >= rows.num_tokens * task.heads) return;
  const int t = r / task.heads, h = r % task.heads;
  const int lane = static_cast<int>(threadIdx.x);
  const auto split = static_cast<int>(blockIdx.z);
  const int64_t row = static_cast<int64_t>(rows.token_begin) * task.heads + r;
  const float* q = task.out + row * task.dim;
  const Split part = split_of(rows.first_position + t + 1, kWarp, split, task.splits);
  float* sums = task.sums + (row * task.splits + split) * task.dim;
  Running running;
  float acc[kMaxPerLane] = {};
  for (int64_t begin = part.begin; begin < part.end; begin += kWarp) {
    attend<kType>(task, rows, q, h / task.group, begin, part.end, running, acc);
  }
#pragma unroll
  for (int c = 0; c < kMaxPerLane; ++c) {
    const int i = lane + c * kWarp;
    if (i < task.dim) sums[i] = acc[c];
  }
  if (lane == 0) task.weights[row * task.splits + split] = {running.top, running.total};
}

}  // namespace

int simple_splits(const AttentionTask& task, const StepBatch& batch, int num_sms) {
  const int64_t warps = split_shape(batch).sequences * batch.max_tokens * task.heads;
  const int64_t wanted = 8 * static_cast<int64_t>(num_sms) / std::max<int64_t>(warps, 1);
  const int64_t useful = (batch.max_positions + kWarp - 1) / kWarp;
  return static_cast<int>(std::max<int64_t>(std::min(wanted, useful), 1));
}

void attention_simple(Queue& queue, const AttentionTask& task, const StepBatch& batch) {
  const Grid grid{.x = blocks_for(static_cast<int64_t>(batch.max_tokens) * task.heads, kWarps),
                  .y = static_cast<unsigned>(batch.num_sequences),
                  .z = static_cast<unsigned>(task.splits)};
  const Grid block{.x = kWarp, .y = kWarps};
  switch (task.type) {
    case KvType::kF32:
      HS_LAUNCH(queue, grid, block, 0, attention_simple_kernel<KvType::kF32>, task);
      break;
    case KvType::kBF16:
      HS_LAUNCH(queue, grid, block, 0, attention_simple_kernel<KvType::kBF16>, task);
      break;
    case KvType::kF16:
      HS_LAUNCH(queue, grid, block, 0, attention_simple_kernel<KvType::kF16>, task);
      break;
  }
}

}  // namespace hotset::cuda
