// SPDX-License-Identifier: Apache-2.0
// Linear layers over packed weights:  y[t, r] = Σ_c x[t, c] · W[r, c]
//
// All matrices that read the same input go into one call, so that the threads meet once and the
// input is prepared (rounded to int8, put into the weights' column order) once. Any code, scale,
// group size, number of rows, columns and tokens is accepted. A token's result is bitwise the same
// whatever else is in the call.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/queue.h"
#include "quant/packed_matrix.h"

namespace hotset {

namespace cuda {
struct Queue;
}

struct MatmulOutput {
  const PackedMatrix* weight = nullptr;  // [rows, cols]
  float* y = nullptr;                    // [num_tokens, rows], row stride ldy; must not overlap x
  int64_t ldy = 0;
};

// x: [num_tokens, cols], row stride ldx; all weights have the same cols.
void matmul(cpu::Queue& queue, std::span<const MatmulOutput> outputs, const float* x, int64_t ldx,
            int64_t num_tokens);
// Weights, with their codebooks and input orders, and activations in device memory; `outputs` in
// host memory. Integer products have the bits of the CPU's; those of plain weights are summed in
// another order.
void matmul(cuda::Queue& queue, std::span<const MatmulOutput> outputs, const float* x, int64_t ldx,
            int64_t num_tokens);

}  // namespace hotset
