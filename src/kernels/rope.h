// SPDX-License-Identifier: Apache-2.0
// Partial rotary position embedding with half-split pairs, and YaRN.
//
// Of a head's head_dim values the first rotary_dims = d turn, the others pass. For i in 0 … d/2−1
// the pair is (i, i + d/2):  a' = a·cos − b·sin,  b' = b·cos + a·sin,  angle = position ·
// inv_freq[i]. Frequencies and angles are computed in double and reduced there, so positions up to
// 2^31 are exact to fp32; the angles of a step are computed once and used by all of its layers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/step_batch.h"

namespace hotset {

namespace cpu {
struct Queue;
}
namespace cuda {
struct Queue;
}

struct RopeConfig {
  double theta = 1e7;        // rope_theta
  int64_t rotary_dims = 64;  // head_dim · partial_rotary_factor, even
  bool yarn = false;         // the fields below count only with yarn
  double factor = 1.0;
  double original_max_position_embeddings = 262144.0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool truncate = true;           // round the ramp's ends to whole dimensions
  double attention_factor = 0.0;  // > 0 overrides what factor and mscale give
  double mscale = 0.0;            // both > 0: m = yarn(mscale) / yarn(mscale_all_dim)
  double mscale_all_dim = 0.0;
};

// `inv_freq` [rotary_dims / 2] is make_rope_table's; in device memory for CUDA operations.
struct RopeView {
  const double* inv_freq = nullptr;
  int64_t rotary_dims = 0;
  double attention_factor = 1.0;  // multiplies cos and sin
};

struct RopeTable {
  std::vector<double> inv_freq;   // [rotary_dims / 2]
  double attention_factor = 1.0;  // multiplies cos and sin

  [[nodiscard]] int64_t rotary_dims() const { return static_cast<int64_t>(inv_freq.size()) * 2; }
  [[nodiscard]] RopeView view() const { return {inv_freq.data(), rotary_dims(), attention_factor}; }
};

[[nodiscard]] RopeTable make_rope_table(const RopeConfig& config);

// cos_sin: [positions.size(), rotary_dims]: per token the d/2 cosines, then the d/2 sines.
void rope_angles(cpu::Queue& queue, const RopeTable& table, std::span<const int64_t> positions,
                 float* cos_sin);

// The same for all rows of a step, each at its sequence's position.
void rope_angles(cpu::Queue& queue, const RopeView& rope, const StepBatch& batch, float* cos_sin);
void rope_angles(cuda::Queue& queue, const RopeView& rope, const StepBatch& batch, float* cos_sin);

struct RopeParams {
  int64_t num_tokens = 0;
  int64_t num_heads = 0;
  int64_t head_dim = 0;
  int64_t rotary_dims = 0;
};

// x: [num_tokens, num_heads, head_dim], turned in place; cos_sin as rope_angles wrote it.
void rope(cpu::Queue& queue, const RopeParams& params, const float* cos_sin, float* x);

}  // namespace hotset
