// SPDX-License-Identifier: Apache-2.0
// The Gated DeltaNet mixer between its projections, for all sequences of a step:
//
//   q, k, v, z = split(qkvz);  (q, k, v) ← silu(conv(q, k, v));  q, k normalised
//   beta, g from ba;  o = delta_rule(q, k, v, beta, g, S);  out = rms_norm(o) · norm ∘ silu(z)
//
// delta_net.h, delta_rule.h and rms_norm.h have the formulas. A GPU does it in one kernel for
// single tokens. States are read and written in place.
#pragma once

#include <cstdint>

#include "kernels/delta_net.h"
#include "kernels/step_batch.h"

namespace hotset {

namespace cuda {
struct Queue;
}

struct DeltaMixer {
  DeltaNetShape shape;
  int64_t conv_kernel = 4;         // linear_conv_kernel_dim
  float eps = 1e-6f;               // rms_norm_eps
  const float* conv1d = nullptr;   // [conv_kernel, channels]
  const float* a_log = nullptr;    // [Hv]
  const float* dt_bias = nullptr;  // [Hv]
  const float* norm = nullptr;     // [dv], plain weight
  // Where this layer lies in a sequence's state slot, in floats.
  int64_t delta_offset = 0;  // [Hv, dk, dv]
  int64_t conv_offset = 0;   // [conv_kernel − 1, channels]
};

// Room for a step's intermediate results, [num_tokens, …] each.
struct DeltaMixerBuffers {
  float* mixed = nullptr;    // channels
  float* z = nullptr;        // Hv · dv
  float* beta = nullptr;     // Hv
  float* decay = nullptr;    // Hv
  float* scratch = nullptr;  // delta_rule_workspace_floats() of the longest sequence part
};

// qkvz [T, qkvz_dim], ba [T, 2·Hv] as the projections give them; out [T, Hv, dv].
void delta_mixer(cpu::Queue& queue, const DeltaMixer& mixer, const StepBatch& batch,
                 const float* qkvz, const float* ba, const DeltaMixerBuffers& buffers, float* out);
void delta_mixer(cuda::Queue& queue, const DeltaMixer& mixer, const StepBatch& batch,
                 const float* qkvz, const float* ba, const DeltaMixerBuffers& buffers, float* out);

}  // namespace hotset
