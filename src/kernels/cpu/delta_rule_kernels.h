// SPDX-License-Identifier: Apache-2.0
// The inner loops of the delta rule, one table per instruction set (bodies:
// delta_rule_kernels_body.h). A task is one value head of one call.
#pragma once

#include <cstdint>

#include "kernels/cpu/queue.h"

namespace hotset::cpu {

// The recurrent form works on this many columns of the state at a time.
inline constexpr int64_t kDeltaSlice = 32;

struct DeltaHead {
  int64_t num_tokens = 0;
  int64_t dk = 0;
  int64_t dv = 0;
  int64_t in_stride = 0;    // floats from one token's q (k, v) to the next
  int64_t gate_stride = 0;  // of beta and g
  int64_t out_stride = 0;
  const float* q = nullptr;
  const float* k = nullptr;
  const float* v = nullptr;
  const float* beta = nullptr;
  const float* g = nullptr;
  float* state = nullptr;  // [dk, dv]
  float* out = nullptr;
  float* scratch = nullptr;
};

struct DeltaRuleKernels {
  // Columns begin … begin+width−1 (width <= kDeltaSlice) over all tokens.
  // decay: [num_tokens] exp(g). scratch: [dk, kDeltaSlice]
  void (*recurrent)(const DeltaHead& head, int64_t begin, int64_t width, const float* decay);
  // One chunk of num_tokens tokens. scratch: delta_chunk_scratch_floats.
  void (*chunk)(const DeltaHead& head);
};

// Rows of scratch matrices are padded to whole vectors of any instruction set.
[[nodiscard]] inline int64_t delta_padded(int64_t n) {
  return (n + 15) / 16 * 16;
}

// kᵀ [dk, C], products k·kᵀ and q·kᵀ [C, C], decayed k [C, dk], X [C, dv], and two vectors [C].
[[nodiscard]] inline int64_t delta_chunk_scratch_floats(int64_t chunk, int64_t dk, int64_t dv) {
  const int64_t c = delta_padded(chunk);
  return dk * c + 2 * c * c + c * delta_padded(dk) + c * delta_padded(dv) + 2 * c;
}

[[nodiscard]] const DeltaRuleKernels& delta_rule_kernels(Isa isa);

const DeltaRuleKernels& delta_rule_kernels_scalar();
const DeltaRuleKernels& delta_rule_kernels_avx2();
const DeltaRuleKernels& delta_rule_kernels_avx512();

}  // namespace hotset::cpu
