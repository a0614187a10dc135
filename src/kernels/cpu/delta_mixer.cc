// SPDX-License-Identifier: Apache-2.0
// Sequence by sequence, one small operation after the other.
#include "kernels/delta_mixer.h"

#include "kernels/cpu/queue.h"
#include "kernels/delta_rule.h"
#include "kernels/rms_norm.h"

namespace hotset {

void delta_mixer(cpu::Queue& queue, const DeltaMixer& mixer, const StepBatch& batch,
                 const float* qkvz, const float* ba, const DeltaMixerBuffers& buffers, float* out) {
  const DeltaNetShape& shape = mixer.shape;
  for (int32_t s = 0; s < batch.num_sequences; ++s) {
    const SequenceRows& rows = batch.sequences[s];
    const int64_t begin = rows.token_begin, t = rows.num_tokens;
    float* mixed = buffers.mixed + begin * shape.channels();
    float* z = buffers.z + begin * shape.value_dim();
    float* beta = buffers.beta + begin * shape.num_value_heads;
    float* decay = buffers.decay + begin * shape.num_value_heads;
    float* o = out + begin * shape.value_dim();

    split_qkvz(queue, shape, t, qkvz + begin * shape.qkvz_dim(), mixed, z);
    conv1d(queue, {.num_tokens = t, .channels = shape.channels(), .kernel = mixer.conv_kernel},
           mixed, mixer.conv1d, rows.state + mixer.conv_offset, mixed);
    normalize_qk(queue, shape, t, mixed);
    delta_gates(queue, shape, t, ba + begin * 2 * shape.num_value_heads, mixer.a_log, mixer.dt_bias,
                beta, decay);
    delta_rule(queue, {.shape = shape, .num_tokens = t}, mixed, beta, decay,
               rows.state + mixer.delta_offset, o, buffers.scratch);
    gated_rms_norm(
        queue,
        {.num_rows = t * shape.num_value_heads, .cols = shape.value_head_dim, .eps = mixer.eps}, o,
        z, mixer.norm, o);
  }
}

}  // namespace hotset
