// SPDX-License-Identifier: Apache-2.0
// What kernels of several operations share: sums over a warp, and the activations. The compiler
// contracts nothing (cmake/Cuda.cmake), so a fused multiply-add is one that says fmaf.
#pragma once

#include <cstdint>

namespace hotset::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

// Every lane gets the sum, added in the same order on every lane.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  }
  return x;
}

__device__ __forceinline__ float sigmoid(float x) {
  return 1.0f / (1.0f + expf(-x));
}

__device__ __forceinline__ float silu(float x) {
  return x / (1.0f + expf(-x));
}

// The sum over a block of whole warps, on every thread. `shared` holds a float a warp and may be
// used again after the next barrier.
__device__ __forceinline__ float block_sum(float x, float* shared) {
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  x = warp_sum(x);
  if (lane == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  return warp_sum(lane < warps ? shared[lane] : 0.0f);
}

[[nodiscard]] inline bool is_aligned(const void* data, uintptr_t bytes) {
  return reinterpret_cast<uintptr_t>(data) % bytes == 0;
}

}  // namespace hotset::cuda
