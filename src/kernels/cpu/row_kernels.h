// SPDX-License-Identifier: Apache-2.0
// The inner loops of the row-wise operations, one table per instruction set. The bodies are in
// row_kernels_body.h and are compiled once per table (row_kernels_<isa>.cc).
#pragma once

#include <cstdint>

#include "kernels/cpu/queue.h"

namespace hotset::cpu {

struct RowKernels {
  // out = x · rsqrt(mean(x²) + eps) · (bias + weight), row by row
  void (*rms_norm)(int64_t rows, int64_t cols, float eps, float bias, const float* x,
                   const float* weight, float* out);
  void (*gated_rms_norm)(int64_t rows, int64_t cols, float eps, const float* x, const float* z,
                         const float* weight, float* out);
  void (*add)(int64_t n, const float* x, float* y);
  void (*swiglu)(int64_t n, const float* gate, const float* up, float* out);
  void (*sigmoid_gate)(int64_t n, const float* gate, float* y);
  void (*axpy)(int64_t n, float a, const float* x, float* y);  // y += a·x
  void (*rope)(int64_t heads, int64_t head_dim, int64_t rotary_dims, const float* cos_sin,
               float* x);                                  // one token
  void (*l2_normalize)(int64_t n, float scale, float* x);  // x · rsqrt(Σx² + 1e-6) · scale
  void (*conv1d)(int64_t tokens, int64_t channels, int64_t begin, int64_t end, int64_t kernel,
                 const float* x, const float* weight, float* state, float* out);
  float (*softmax_sum)(int64_t n, float max, const float* x);  // Σ exp(x − max)
};

// Channels of one conv1d call: end − begin is at most this.
inline constexpr int64_t kConvSlice = 256;

[[nodiscard]] const RowKernels& row_kernels(Isa isa);

const RowKernels& row_kernels_scalar();
const RowKernels& row_kernels_avx2();
const RowKernels& row_kernels_avx512();

}  // namespace hotset::cpu
