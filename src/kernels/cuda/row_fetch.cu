// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_fetch.h"

namespace hotset::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 32;  // enough for PCIe; the other SMs multiply

__global__ void __launch_bounds__(kThreads)
    fetch_rows_kernel(const float* from, const int32_t* indices, int64_t count, int64_t width,
                      float* to) {
  for (int64_t i = blockIdx.x; i < count; i += gridDim.x) {
    const int64_t row = indices[i] * width;
    const auto* source = reinterpret_cast<const float4*>(from + row);
    auto* target = reinterpret_cast<float4*>(to + row);
#pragma unroll 4
    for (int64_t k = threadIdx.x; k < width / 4; k += kThreads) target[k] = source[k];
    for (int64_t k = width / 4 * 4 + threadIdx.x; k < width; k += kThreads) {
      to[row + k] = from[row + k];
    }
  }
}

}  // namespace

void fetch_rows(Queue& queue, const float* from, const int32_t* indices, int64_t count,
                int64_t width, float* to) {
  if (count == 0) return;
  HS_LAUNCH(queue, Grid{static_cast<unsigned>(std::min(count, kMaxBlocks))}, Grid{kThreads}, 0,
            fetch_rows_kernel, from, indices, count, width, to);
}

}  // namespace hotset::cuda
