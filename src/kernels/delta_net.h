// SPDX-License-Identifier: Apache-2.0
// The parts of the Gated DeltaNet mixer between its projections and the delta rule (delta_rule.h):
// split, causal convolution, normalisation, gates. Activations fp32, dense, row-major.
//
//   Hk = linear_num_key_heads, Hv = linear_num_value_heads, r = Hv / Hk, dk and dv the head dims.
//   Value head h belongs to key head h / r.
//   mixed   [T, channels], channels = 2·Hk·dk + Hv·dv: all q heads, all k heads, all v heads
//
// One layer:  split_qkvz → conv1d (mixed → mixed) → normalize_qk (in mixed) → delta_gates
//             → delta_rule on the three parts of mixed → gated_rms_norm with z.
#pragma once

#include <cstdint>

namespace hotset {

namespace cpu {
struct Queue;
}

struct DeltaNetShape {
  int64_t num_key_heads = 0;    // Hk
  int64_t num_value_heads = 0;  // Hv, a multiple of Hk
  int64_t key_head_dim = 0;     // dk
  int64_t value_head_dim = 0;   // dv

  [[nodiscard]] int64_t key_dim() const { return num_key_heads * key_head_dim; }
  [[nodiscard]] int64_t value_dim() const { return num_value_heads * value_head_dim; }
  [[nodiscard]] int64_t channels() const { return 2 * key_dim() + value_dim(); }
  [[nodiscard]] int64_t qkvz_dim() const { return 2 * key_dim() + 2 * value_dim(); }
};

// qkvz: [T, qkvz_dim] as in_proj_qkvz gives it: Hk groups of (q dk, k dk, v r·dv, z r·dv).
// mixed: [T, channels]; z: [T, Hv, dv]. Nothing may alias.
void split_qkvz(cpu::Queue& queue, const DeltaNetShape& shape, int64_t num_tokens,
                const float* qkvz, float* mixed, float* z);

struct Conv1dParams {
  int64_t num_tokens = 0;
  int64_t channels = 0;
  int64_t kernel = 4;  // linear_conv_kernel_dim, 2 … 8
};

// out[t, c] = silu( Σ_j weight[j, c] · u[t − (kernel−1) + j, c] ), u before the call = state.
//   x      [T, channels]         out  [T, channels], may be x
//   weight [kernel, channels]    the checkpoint's [channels, 1, kernel] transposed at load
//   state  [kernel−1, channels]  the last inputs before this call, oldest first; all 0 at the start
//   of
//                                a sequence; updated in place
void conv1d(cpu::Queue& queue, const Conv1dParams& params, const float* x, const float* weight,
            float* state, float* out);

// In place on mixed, per head:  q ← q·rsqrt(Σq² + 1e-6)·dk^-½,  k ← k·rsqrt(Σk² + 1e-6).
void normalize_qk(cpu::Queue& queue, const DeltaNetShape& shape, int64_t num_tokens, float* mixed);

// beta[t,h] = σ(b),  g[t,h] = −exp(a_log[h]) · softplus(a + dt_bias[h])   (g ≤ 0, log of the decay)
//   ba [T, 2·Hv] as in_proj_ba gives it: Hk groups of (b r, a r); a_log, dt_bias [Hv];
//   beta, g [T, Hv]. softplus(x) = x above 20. Always finite for finite input.
void delta_gates(cpu::Queue& queue, const DeltaNetShape& shape, int64_t num_tokens, const float* ba,
                 const float* a_log, const float* dt_bias, float* beta, float* g);

}  // namespace hotset
