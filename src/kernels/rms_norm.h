// SPDX-License-Identifier: Apache-2.0
// The norms of the residual stream, of attention's query and key heads, and of the delta-net
// output.
//
//   rms_norm        y = x · rsqrt(mean(x²) + eps) · (1 + w)          zero-centred weight
//   add_rms_norm    r ← r + x;  y = rms_norm(r)                      the residual add in front of
//   one gated_rms_norm  y = x · rsqrt(mean(x²) + eps) · w ∘ silu(z)      plain weight, gate
//   afterwards
//
// All fp32. A row's result depends on that row alone: the order of additions is fixed per
// instruction set, whatever num_rows and the number of threads.
#pragma once

#include <cstdint>

namespace hotset {

namespace cpu {
struct Queue;
}
namespace cuda {
struct Queue;
}

struct RmsNormParams {
  int64_t num_rows = 0;  // tokens, or tokens · heads
  int64_t cols = 0;      // hidden_size or head_dim
  float eps = 1e-6f;     // rms_norm_eps
};

// x, out: [num_rows, cols]; weight: [cols]. out may be x.
void rms_norm(cpu::Queue& queue, const RmsNormParams& params, const float* x, const float* weight,
              float* out);
void rms_norm(cuda::Queue& queue, const RmsNormParams& params, const float* x, const float* weight,
              float* out);

// residual: [num_rows, cols], updated in place; x, out: [num_rows, cols]. out may be x.
void add_rms_norm(cpu::Queue& queue, const RmsNormParams& params, const float* x, float* residual,
                  const float* weight, float* out);
void add_rms_norm(cuda::Queue& queue, const RmsNormParams& params, const float* x, float* residual,
                  const float* weight, float* out);

// x, z, out: [num_rows, cols] with num_rows = tokens · value heads, cols = linear_value_head_dim.
// out may be x.
void gated_rms_norm(cpu::Queue& queue, const RmsNormParams& params, const float* x, const float* z,
                    const float* weight, float* out);

}  // namespace hotset
