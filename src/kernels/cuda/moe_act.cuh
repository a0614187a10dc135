// SPDX-License-Identifier: Apache-2.0
// What lies between gate·up and down of few tokens, for the kernels that compute either way.
#pragma once

#include "kernels/cuda/moe_launch.h"
#include "kernels/cuda/tile_products.cuh"

namespace hotset::cuda {

// One warp: SwiGLU of 32 rows of one choice from first_row on, and their rounding where down reads
// them rounded. gate, up: [32]. act: null unless the job leaves floats.
__device__ inline void finish_rows(const ExpertArgs& args, const ExpertJob& job, const float* gate,
                                   const float* up, int64_t pair, int first_row, int lane) {
  const int row = first_row + lane;
  const float value = row < job.gate.rows ? silu_mul(gate[lane], up[lane]) : 0.0f;
  if (!job.rounds_act) {
    if (row < job.gate.rows) args.act[pair * args.max_width + row] = value;
    return;
  }
  const RoundedValue rounded = round_sub_block(value);
  const RoundedInput& to = args.act_in;
  to.q[pair * to.sub_stride * kSubBlock + row] = static_cast<int8_t>(rounded.q);
  if (lane == 0) {
    float* meta = to.meta + (pair * to.sub_stride + first_row / kSubBlock) * 2;
    *reinterpret_cast<float2*>(meta) = {rounded.scale, static_cast<float>(rounded.sum)};
  }
}

}  // namespace hotset::cuda
