// SPDX-License-Identifier: Apache-2.0
#include "cuda/device_read.h"
#include "kernels/cuda/launch.cuh"

namespace hotset::bench {
namespace {

constexpr int kThreads = 512;
constexpr int kAtOnce = 8;

__global__ void __launch_bounds__(kThreads) read_kernel(const uint4* data, int64_t n, float* sink) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  unsigned seen = 0;
  int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (; i + (kAtOnce - 1) * stride < n; i += kAtOnce * stride) {
    uint4 v[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) v[j] = __ldcs(data + i + j * stride);
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) seen ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  for (; i < n; i += stride) seen ^= data[i].x ^ data[i].y ^ data[i].z ^ data[i].w;
  if (seen == 0x12345678u) *sink = 1.0f;
}

}  // namespace

void read_device(cuda::Queue& queue, const std::byte* data, int64_t bytes, float* sink) {
  const cuda::Grid grid{.x = static_cast<unsigned>(4 * queue.num_sms())};
  HS_LAUNCH(queue, grid, cuda::Grid{.x = kThreads}, 0, read_kernel,
            reinterpret_cast<const uint4*>(data), bytes / 16, sink);
}

}  // namespace hotset::bench
