// SPDX-License-Identifier: Apache-2.0
// What sits between the matrix products: sums, gates, and two scans over logits. All fp32; arrays
// are dense and row-major; in-place use is allowed where it is stated.
#pragma once

#include <cstdint>
#include <span>

namespace hotset {

namespace cpu {
struct Queue;
}

// y ← y + x, over n elements.
void add(cpu::Queue& queue, int64_t n, const float* x, float* y);

// out = silu(gate) ∘ up, over n elements. out may be gate or up.
void swiglu(cpu::Queue& queue, int64_t n, const float* gate, const float* up, float* out);

// As swiglu, from one product that holds both halves of a row: gate_up [num_rows, 2·width] (gate
// first), out [num_rows, width], not aliased.
void swiglu_rows(cpu::Queue& queue, int64_t num_rows, int64_t width, const float* gate_up,
                 float* out);

// y ← y ∘ σ(gate), over n elements: the output gate of full attention.
void sigmoid_gate(cpu::Queue& queue, int64_t n, const float* gate, float* y);

// y[t, :] ← y[t, :] + σ(gate_logit[t]) · x[t, :]: the shared expert joins the routed ones.
// x, y: [num_rows, cols]; gate_logit: [num_rows].
void add_sigmoid_scaled(cpu::Queue& queue, int64_t num_rows, int64_t cols, const float* gate_logit,
                        const float* x, float* y);

// The index of the largest value, the lowest one on ties; NaNs never win. Requires values non-empty
// (all NaN: 0).
[[nodiscard]] int64_t argmax(std::span<const float> values);

// The index of the first NaN or infinity, −1 when all values are finite.
[[nodiscard]] int64_t find_non_finite(std::span<const float> values);

}  // namespace hotset
