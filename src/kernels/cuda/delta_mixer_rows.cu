// SPDX-License-Identifier: Apache-2.0
// What surrounds the chunked delta rule, for all rows at once: the convolution into `mixed` (q and
// k normalised, as rows of two planes), gates, the conv state's new inputs; afterwards the gated
// norm.
#include "kernels/cuda/delta_mixer_chunks.cuh"

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
  const int count = min(kConvRows, rows.num_tokens - first);
  float inputs[kConvRows];
#pragma unroll
  for (int i = 0; i < kConvRows; ++i) {
    inputs[i] = i < count ? x[static_cast<int64_t>(first + i) * task.qkvz_dim] : 0.0f;
  }
  float* out = task.mixed + static_cast<int64_t>(rows.token_begin + first) * task.channels + c;
#pragma unroll
  for (int i = 0; i < kConvRows; ++i) {
    const float y = window.step(inputs[i]);
    if (i < count) out[static_cast<int64_t>(i) * task.channels] = y;
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

__device__ __forceinline__ float4 as4(const float* at) {
  return *reinterpret_cast<const float4*>(at);
}
__device__ __forceinline__ float square_sum(const float4& x) {
  return warp_sum(fmaf(x.x, x.x, fmaf(x.y, x.y, fmaf(x.z, x.z, x.w * x.w))));
}

// Block (x, y): row x of sequence y; a warp a head of q or k, a thread a value head's gates.
__global__ void __launch_bounds__(kThreads) normalize_rows_kernel(DeltaTask task) {
  const SequenceRows rows = task.sequences[blockIdx.y];
  const auto t = static_cast<int>(blockIdx.x);
  if (t >= rows.num_tokens) return;
  const int64_t at = rows.token_begin + t;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll 2
  for (int h = static_cast<int>(threadIdx.x) / kWarp; h < 2 * task.key_heads;
       h += kThreads / kWarp) {
    float* row = task.mixed + at * task.channels + h * kDeltaDim;
    const float4 x = as4(row + 4 * lane);
    const float scale = h < task.key_heads ? task.query_scale : 1.0f;
    const float factor = scale / sqrtf(square_sum(x) + 1e-6f);  // every lane has read by now
    const DeltaHalves a = delta_split(factor * x.x, factor * x.y),
                      b = delta_split(factor * x.z, factor * x.w);
    auto* planes = reinterpret_cast<uint2*>(row);
    planes[lane] = make_uint2(a.high, b.high);
    planes[kWarp + lane] = make_uint2(a.low, b.low);
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
  const int column = static_cast<int>(threadIdx.x) % kWarp * 4;
  const float4 norm = as4(task.norm + column);
#pragma unroll 4
  for (int h = static_cast<int>(threadIdx.x) / kWarp; h < task.value_heads; h += kThreads / kWarp) {
    float* out = task.out + (at * task.value_heads + h) * kDeltaDim + column;
    const float4 o = as4(out);
    const float4 z = as4(task.qkvz + at * task.qkvz_dim + z_column(task, h) + column);
    const float inverse = 1.0f / sqrtf(square_sum(o) / static_cast<float>(kDeltaDim) + task.eps);
    *reinterpret_cast<float4*>(out) =
        make_float4(o.x * inverse * norm.x * silu(z.x), o.y * inverse * norm.y * silu(z.y),
                    o.z * inverse * norm.z * silu(z.z), o.w * inverse * norm.w * silu(z.w));
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
