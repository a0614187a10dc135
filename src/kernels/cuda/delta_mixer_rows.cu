// SPDX-License-Identifier: Apache-2.0
// What surrounds the chunked delta rule, for all rows at once: the convolution into `mixed` (q and
// k normalised), gates, the conv state's new inputs; afterwards the gated norm.
#include "kernels/cuda/delta_mixer_parts.cuh"

namespace hotset::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kConvRows = 16;  // that a thread takes its channel through

// Block (x, y, z): rows 16x … of sequence y, channels 256z ….
template <int kTaps>
__global__ void __launch_bounds__(kThreads) conv_rows_kernel(DeltaTask task) {
  const SequenceRows rows = task.sequences[blockIdx.y];
  const int first = static_cast<int>(blockIdx.x) * kConvRows;
  const int c = static_cast<int>(blockIdx.z) * kThreads + static_cast<int>(threadIdx.x);
  if (first >= rows.num_tokens || c >= task.channels) return;
  const float* x =
      task.qkvz + static_cast<int64_t>(rows.token_begin) * task.qkvz_dim + qkvz_column(task, c);
  const float* state = rows.state + task.conv_offset + c;
  const int past = task.taps - 1;
  ConvWindow<kTaps> window;
  window.load_weights(task, c);
  window.load_past(task, [&](int j) {
    const int t = first - past + j;
    return t < 0 ? state[static_cast<int64_t>(past + t) * task.channels]
                 : x[static_cast<int64_t>(t) * task.qkvz_dim];
  });
  const int end = min(first + kConvRows, rows.num_tokens);
  float* out = task.mixed + static_cast<int64_t>(rows.token_begin) * task.channels + c;
  for (int t = first; t < end; ++t) {
    out[static_cast<int64_t>(t) * task.channels] =
        window.step(x[static_cast<int64_t>(t) * task.qkvz_dim]);
  }
}

// Block (x, y): 256 channels of sequence y. After conv_rows_kernel, which reads the old state.
__global__ void __launch_bounds__(kThreads) conv_state_kernel(DeltaTask task) {
  const SequenceRows rows = task.sequences[blockIdx.y];
  const int c = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (rows.num_tokens <= 0 || c >= task.channels) return;
  const float* x =
      task.qkvz + static_cast<int64_t>(rows.token_begin) * task.qkvz_dim + qkvz_column(task, c);
  float* state = rows.state + task.conv_offset + c;
  const int past = task.taps - 1;
  for (int j = 0; j < past; ++j) {  // rising, so that an old input is read before it is replaced
    const int t = rows.num_tokens - past + j;
    state[static_cast<int64_t>(j) * task.channels] =
        t < 0 ? state[static_cast<int64_t>(past + t) * task.channels]
              : x[static_cast<int64_t>(t) * task.qkvz_dim];
  }
}

// Block (x, y): row x of sequence y; a warp a head of q or k, a thread a value head's gates.
__global__ void __launch_bounds__(kThreads) normalize_rows_kernel(DeltaTask task) {
  const SequenceRows rows = task.sequences[blockIdx.y];
  const auto t = static_cast<int>(blockIdx.x);
  if (t >= rows.num_tokens) return;
  const int64_t at = rows.token_begin + t;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int h = static_cast<int>(threadIdx.x) / kWarp; h < 2 * task.key_heads;
       h += kThreads / kWarp) {
    float* x = task.mixed + at * task.channels + h * task.dk;
    float total = 0.0f;
    for (int i = lane; i < task.dk; i += kWarp) total = fmaf(x[i], x[i], total);
    const float scale = h < task.key_heads ? task.query_scale : 1.0f;
    const float factor = scale / sqrtf(warp_sum(total) + 1e-6f);
    for (int i = lane; i < task.dk; i += kWarp) x[i] *= factor;
  }
  for (int h = static_cast<int>(threadIdx.x); h < task.value_heads; h += kThreads) {
    const Gates gates = gates_of(gate_inputs(task, at, h));
    task.beta[at * task.value_heads + h] = gates.beta;
    task.decay[at * task.value_heads + h] = gates.log_decay;
  }
}

// Block (x, y): row x of sequence y; a warp a value head.
__global__ void __launch_bounds__(kThreads) gated_norm_rows_kernel(DeltaTask task) {
  const SequenceRows rows = task.sequences[blockIdx.y];
  const auto t = static_cast<int>(blockIdx.x);
  if (t >= rows.num_tokens) return;
  const int64_t at = rows.token_begin + t;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int h = static_cast<int>(threadIdx.x) / kWarp; h < task.value_heads; h += kThreads / kWarp) {
    float* o = task.out + (at * task.value_heads + h) * task.dv;
    const float* z = task.qkvz + at * task.qkvz_dim + z_column(task, h);
    float total = 0.0f;
    for (int j = lane; j < task.dv; j += kWarp) total = fmaf(o[j], o[j], total);
    const float inverse = 1.0f / sqrtf(warp_sum(total) / static_cast<float>(task.dv) + task.eps);
    for (int j = lane; j < task.dv; j += kWarp) o[j] = o[j] * inverse * task.norm[j] * silu(z[j]);
  }
}

}  // namespace

void delta_rows_before(Queue& queue, const DeltaTask& task, const StepBatch& batch) {
  const auto sequences = static_cast<unsigned>(batch.num_sequences);
  const unsigned slices = blocks_for(task.channels, kThreads);
  const Grid tiles{.x = blocks_for(batch.max_tokens, kConvRows), .y = sequences, .z = slices};
  with_taps(task, [&]<int kTaps>() {
    HS_LAUNCH(queue, tiles, Grid{.x = kThreads}, 0, conv_rows_kernel<kTaps>, task);
  });
  HS_LAUNCH(queue, (Grid{.x = slices, .y = sequences}), Grid{.x = kThreads}, 0, conv_state_kernel,
            task);
  HS_LAUNCH(queue, (Grid{.x = blocks_for(batch.max_tokens, 1), .y = sequences}),
            Grid{.x = kThreads}, 0, normalize_rows_kernel, task);
}

void delta_rows_after(Queue& queue, const DeltaTask& task, const StepBatch& batch) {
  HS_LAUNCH(
      queue,
      (Grid{.x = blocks_for(batch.max_tokens, 1), .y = static_cast<unsigned>(batch.num_sequences)}),
      Grid{.x = kThreads}, 0, gated_norm_rows_kernel, task);
}

}  // namespace hotset::cuda
