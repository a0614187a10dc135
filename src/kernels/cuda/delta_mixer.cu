// SPDX-License-Identifier: Apache-2.0
// Which kernels a step takes (delta_mixer_parts.cuh lists them).
#include <cmath>

#include "kernels/cuda/delta_mixer_parts.cuh"
#include "kernels/cuda/shape_check.cuh"
#include "kernels/delta_mixer.h"

namespace hotset {
namespace cuda {
namespace {

DeltaTask task_of(const DeltaMixer& mixer, const StepBatch& batch, const float* qkvz,
                  const float* ba, const DeltaMixerBuffers& buffers, float* out) {
  const DeltaNetShape& shape = mixer.shape;
  const int64_t ratio = shape.num_value_heads / shape.num_key_heads;
  const auto dk = static_cast<double>(shape.key_head_dim);
  return {.key_heads = static_cast<int>(shape.num_key_heads),
          .value_heads = static_cast<int>(shape.num_value_heads),
          .ratio = static_cast<int>(ratio),
          .dk = static_cast<int>(shape.key_head_dim),
          .dv = static_cast<int>(shape.value_head_dim),
          .taps = static_cast<int>(mixer.conv_kernel),
          .channels = static_cast<int>(shape.channels()),
          .group_dim = static_cast<int>(2 * (shape.key_head_dim + ratio * shape.value_head_dim)),
          .qkvz_dim = static_cast<int>(shape.qkvz_dim()),
          .eps = mixer.eps,
          .query_scale = static_cast<float>(1.0 / std::sqrt(dk)),
          .conv1d = mixer.conv1d,
          .a_log = mixer.a_log,
          .dt_bias = mixer.dt_bias,
          .norm = mixer.norm,
          .delta_offset = mixer.delta_offset,
          .conv_offset = mixer.conv_offset,
          .sequences = batch.sequences,
          .qkvz = qkvz,
          .ba = ba,
          .mixed = buffers.mixed,
          .beta = buffers.beta,
          .decay = buffers.decay,
          .out = out};
}

bool is_known(const DeltaMixer& mixer) {
  const DeltaNetShape& shape = mixer.shape;
  return shape.num_key_heads > 0 && shape.num_value_heads % shape.num_key_heads == 0 &&
         shape.key_head_dim > 0 && shape.value_head_dim > 0 && mixer.conv_kernel >= 2 &&
         mixer.conv_kernel <= kMaxTaps;
}

bool has_known_heads(const DeltaTask& task) {
  return task.dk == kDeltaDim && task.dv == kDeltaDim && is_aligned(task.out, 16);
}

bool fits_step(const DeltaTask& task, const StepBatch& batch) {
  return has_known_heads(task) && task.ratio <= 4 && batch.max_tokens <= kMaxStepTokens &&
         is_aligned(task.qkvz, 16) && is_aligned(task.norm, 16) && task.delta_offset % 4 == 0;
}

bool fits_chunks(const DeltaTask& task, const StepBatch& batch) {
  return has_known_heads(task) && batch.max_tokens > kMaxStepTokens && is_aligned(task.qkvz, 16) &&
         is_aligned(task.norm, 16) && is_aligned(task.mixed, 16) && task.delta_offset % 2 == 0;
}

}  // namespace
}  // namespace cuda

void delta_mixer(cuda::Queue& queue, const DeltaMixer& mixer, const StepBatch& batch,
                 const float* qkvz, const float* ba, const DeltaMixerBuffers& buffers, float* out) {
  if (!cuda::is_known_shape(queue, cuda::is_known(mixer), "delta_mixer")) return;
  if (batch.num_sequences <= 0 || batch.max_tokens <= 0) return;
  const cuda::DeltaTask task = cuda::task_of(mixer, batch, qkvz, ba, buffers, out);
  if (cuda::fits_step(task, batch)) {
    cuda::delta_step(queue, task, batch);
  } else if (cuda::fits_chunks(task, batch)) {
    cuda::delta_rows_before(queue, task, batch);
    cuda::delta_chunks(queue, task, batch);
    cuda::delta_rows_after(queue, task, batch);
  } else {
    cuda::delta_recurrent(queue, task, batch);
  }
}

}  // namespace hotset
