// SPDX-License-Identifier: Apache-2.0
// The angles of a step's rows, in double as on the CPU. Turning the heads is part of
// gated_attention.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/shape_check.cuh"
#include "kernels/rope.h"

namespace hotset {
namespace cuda {
namespace {

constexpr int kThreads = 64;

// Block (x, y): row x of sequence y.
__global__ void rope_angles_kernel(RopeView rope, const SequenceRows* sequences, float* cos_sin) {
  const SequenceRows rows = sequences[blockIdx.y];
  const auto t = static_cast<int32_t>(blockIdx.x);
  if (t >= rows.num_tokens) return;
  const int64_t half = rope.rotary_dims / 2;
  const auto position = static_cast<double>(rows.first_position + t);
  float* row = cos_sin + static_cast<int64_t>(rows.token_begin + t) * rope.rotary_dims;
  for (int64_t i = threadIdx.x; i < half; i += blockDim.x) {
    double sine = 0.0, cosine = 0.0;
    sincos(position * rope.inv_freq[i], &sine, &cosine);
    row[i] = static_cast<float>(cosine * rope.attention_factor);
    row[half + i] = static_cast<float>(sine * rope.attention_factor);
  }
}

}  // namespace
}  // namespace cuda

void rope_angles(cuda::Queue& queue, const RopeView& rope, const StepBatch& batch, float* cos_sin) {
  if (!cuda::is_known_shape(queue, rope.rotary_dims > 0 && rope.rotary_dims % 2 == 0, "rope")) {
    return;
  }
  const cuda::Grid grid{.x = cuda::blocks_for(batch.max_tokens, 1),
                        .y = cuda::blocks_for(batch.num_sequences, 1)};
  HS_LAUNCH(queue, grid, cuda::Grid{.x = cuda::kThreads}, 0, cuda::rope_angles_kernel, rope,
            batch.sequences, cos_sin);
}

}  // namespace hotset
