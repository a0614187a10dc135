// SPDX-License-Identifier: Apache-2.0
// The rows of a step whose queries fit one block: attention_tensor's blocks make their own queries,
// keys and values instead of waiting for attention_rows. A warp takes a head; lane l holds columns
// l, l + 32, …, so that with 64 rotary dimensions both ends of a pair are in one lane.
#pragma once

#include "kernels/cuda/gated_attention_parts.cuh"
#include "kernels/cuda/mma.cuh"

namespace hotset::cuda {

inline constexpr int kFusedRotary = 2 * kWarp;

template <int kDim>
struct HeadLanes {
  static constexpr int kEach = kDim / kWarp;
  float x[kEach];

  __device__ __forceinline__ void load(const float* from, int lane) {
#pragma unroll
    for (int c = 0; c < kEach; ++c) x[c] = from[lane + kWarp * c];
  }
  // rope(rms_norm(x))
  __device__ __forceinline__ void norm_and_turn(const AttentionTask& task, const float* norm,
                                                const float* cos_sin, int lane) {
    float total = 0.0f;
#pragma unroll
    for (int c = 0; c < kEach; ++c) total = fmaf(x[c], x[c], total);
    const float inverse = 1.0f / sqrtf(warp_sum(total) / static_cast<float>(kDim) + task.eps);
#pragma unroll
    for (int c = 0; c < kEach; ++c) x[c] = x[c] * inverse * (1.0f + norm[lane + kWarp * c]);
    const float c = cos_sin[lane], s = cos_sin[kWarp + lane], a = x[0], b = x[1];
    x[0] = a * c - b * s;
    x[1] = b * c + a * s;
  }
};

template <typename T>
__device__ __forceinline__ T rounded(float x);
template <>
__device__ __forceinline__ __nv_bfloat16 rounded<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ __half rounded<__half>(float x) {
  return __float2half_rn(x);
}

__device__ __forceinline__ float widened(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
__device__ __forceinline__ float widened(__half x) {
  return __half2float(x);
}

// Stores the keys and values of the step's rows that lie at positions of `part`, a warp a row. What
// the block copies asynchronously afterwards sees them behind the next barrier.
template <typename T, int kDim>
__device__ __forceinline__ void store_new_rows(const AttentionTask& task, const SequenceRows& rows,
                                               int kv_head, const Split& part) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  for (int t = static_cast<int>(threadIdx.x) / kWarp; t < rows.num_tokens; t += warps) {
    const int64_t position = rows.first_position + t;
    if (position < part.begin || position >= part.end) continue;
    const int64_t at = rows.token_begin + t;
    const int64_t row = (at * task.kv_heads + kv_head) * kDim;
    HeadLanes<kDim> key, value;
    key.load(task.key + row, lane);
    value.load(task.value + row, lane);
    key.norm_and_turn(task, task.k_norm, task.cos_sin + at * task.rotary, lane);
    std::byte* k = key_address(task, rows, position, kv_head);
    std::byte* v = k + task.plane_bytes;
#pragma unroll
    for (int c = 0; c < HeadLanes<kDim>::kEach; ++c) {
      reinterpret_cast<T*>(k)[lane + kWarp * c] = rounded<T>(key.x[c]);
      reinterpret_cast<T*>(v)[lane + kWarp * c] = rounded<T>(value.x[c]);
    }
  }
  __threadfence();
}

}  // namespace hotset::cuda
