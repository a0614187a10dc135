// SPDX-License-Identifier: Apache-2.0
// One block a row. Rows of up to 4096 columns stay in registers between the two passes; others are
// read again.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/shape_check.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/rms_norm.h"

namespace hotset {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kMaxVectors = 4;  // of four columns, a thread

// kVectors · 4 · kThreads columns at most; all pointers are 16-byte aligned.
template <bool kAdd, int kVectors>
__global__ void __launch_bounds__(kThreads)
    rms_norm_vectors_kernel(int cols, float eps, const float* x, float* residual,
                            const float* weight, float* out) {
  __shared__ float sums[kThreads / kWarp];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * cols;
  float4 values[kVectors], weights[kVectors];
  float total = 0.0f;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int col = (i * kThreads + static_cast<int>(threadIdx.x)) * 4;
    if (col < cols) weights[i] = *reinterpret_cast<const float4*>(weight + col);
  }
  start_next();
  wait_for_earlier();
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int col = (i * kThreads + static_cast<int>(threadIdx.x)) * 4;
    if (col >= cols) break;
    float4 v = *reinterpret_cast<const float4*>(x + row + col);
    if constexpr (kAdd) {
      auto* at = reinterpret_cast<float4*>(residual + row + col);
      const float4 r = *at;
      v = make_float4(r.x + v.x, r.y + v.y, r.z + v.z, r.w + v.w);
      *at = v;
    }
    values[i] = v;
    total = fmaf(v.x, v.x, fmaf(v.y, v.y, fmaf(v.z, v.z, fmaf(v.w, v.w, total))));
  }
  const float inverse = 1.0f / sqrtf(block_sum(total, sums) / static_cast<float>(cols) + eps);
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int col = (i * kThreads + static_cast<int>(threadIdx.x)) * 4;
    if (col >= cols) break;
    const float4 v = values[i], w = weights[i];
    *reinterpret_cast<float4*>(out + row + col) =
        make_float4(v.x * inverse * (1.0f + w.x), v.y * inverse * (1.0f + w.y),
                    v.z * inverse * (1.0f + w.z), v.w * inverse * (1.0f + w.w));
  }
}

template <bool kAdd>
__global__ void __launch_bounds__(kThreads)
    rms_norm_kernel(int64_t cols, float eps, const float* x, float* residual, const float* weight,
                    float* out) {
  __shared__ float sums[kThreads / kWarp];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * cols;
  float total = 0.0f;
  start_next();
  wait_for_earlier();
  for (int64_t col = threadIdx.x; col < cols; col += kThreads) {
    float v = x[row + col];
    if constexpr (kAdd) {
      v += residual[row + col];
      residual[row + col] = v;
    }
    total = fmaf(v, v, total);
  }
  const float inverse = 1.0f / sqrtf(block_sum(total, sums) / static_cast<float>(cols) + eps);
  const float* from = kAdd ? residual : x;
  for (int64_t col = threadIdx.x; col < cols; col += kThreads) {
    out[row + col] = from[row + col] * inverse * (1.0f + weight[col]);
  }
}

template <bool kAdd>
void norm_rows(Queue& queue, const RmsNormParams& params, const float* x, float* residual,
               const float* weight, float* out) {
  if (!is_known_shape(queue, params.cols > 0, "rms_norm")) return;
  const Grid grid{.x = blocks_for(params.num_rows, 1)};
  const Grid block{.x = kThreads};
  const bool aligned = params.cols % 4 == 0 && is_aligned(x, 16) && is_aligned(residual, 16) &&
                       is_aligned(weight, 16) && is_aligned(out, 16);
  if (!aligned || params.cols > kMaxVectors * 4 * kThreads) {
    HS_LAUNCH_EARLY(queue, grid, block, 0, rms_norm_kernel<kAdd>, params.cols, params.eps, x,
                    residual, weight, out);
  } else if (params.cols <= 2 * 4 * kThreads) {
    HS_LAUNCH_EARLY(queue, grid, block, 0, (rms_norm_vectors_kernel<kAdd, 2>), params.cols,
                    params.eps, x, residual, weight, out);
  } else {
    HS_LAUNCH_EARLY(queue, grid, block, 0, (rms_norm_vectors_kernel<kAdd, kMaxVectors>),
                    params.cols, params.eps, x, residual, weight, out);
  }
}

}  // namespace
}  // namespace cuda

void rms_norm(cuda::Queue& queue, const RmsNormParams& params, const float* x, const float* weight,
              float* out) {
  cuda::norm_rows<false>(queue, params, x, nullptr, weight, out);
}

void add_rms_norm(cuda::Queue& queue, const RmsNormParams& params, const float* x, float* residual,
                  const float* weight, float* out) {
  cuda::norm_rows<true>(queue, params, x, residual, weight, out);
}

}  // namespace hotset
