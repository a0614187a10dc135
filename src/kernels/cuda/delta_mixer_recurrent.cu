// SPDX-License-Identifier: Apache-2.0
// The mixer for shapes that have no kernel of their own: a block takes a key head of a sequence
// with its value heads, token after token, with the state in memory. A thread owns a column of S,
// so only the norms need barriers.
#include "kernels/cuda/delta_mixer_parts.cuh"

namespace hotset::cuda {
namespace {

constexpr int kThreads = 256;

struct RecurrentShared {
  float* row;    // q dk, k dk, v ratio · dv after the convolution
  float* o;      // ratio · dv
  float* dots;   // k·k, q·q, k·q
  float* gates;  // [ratio][β, exp(g)]
};

// Channels of this key head: q, k, its v's.
__device__ __forceinline__ int channel_of(const DeltaTask& task, int key_head, int i) {
  const int key_dim = task.key_heads * task.dk;
  if (i < task.dk) return key_head * task.dk + i;
  if (i < 2 * task.dk) return key_dim + key_head * task.dk + i - task.dk;
  return 2 * key_dim + key_head * task.ratio * task.dv + i - 2 * task.dk;
}

__device__ void convolve_token(const DeltaTask& task, const SequenceRows& rows, int key_head,
                               int64_t at, const RecurrentShared& shared) {
  const int width = 2 * task.dk + task.ratio * task.dv;
  float* state = rows.state + task.conv_offset;
  for (int i = static_cast<int>(threadIdx.x); i < width; i += kThreads) {
    const int c = channel_of(task, key_head, i);
    ConvWindow<0> window;
    window.load_weights(task, c);
    window.load_state(task, state, c);
    shared.row[i] = window.step(task.qkvz[at * task.qkvz_dim + key_head * task.group_dim + i]);
    window.store_state(task, state, c);
  }
  if (threadIdx.x < static_cast<unsigned>(task.ratio)) {
    const auto i = static_cast<int>(threadIdx.x);
    const Gates gates = gates_of(gate_inputs(task, at, key_head * task.ratio + i));
    shared.gates[2 * i] = gates.beta;
    shared.gates[2 * i + 1] = expf(gates.log_decay);
  }
}

// The first warp.
__device__ void measure(const DeltaTask& task, const RecurrentShared& shared) {
  const float *q = shared.row, *k = shared.row + task.dk;
  float kk = 0.0f, qq = 0.0f, kq = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < task.dk; i += kWarp) {
    kk = fmaf(k[i], k[i], kk);
    qq = fmaf(q[i], q[i], qq);
    kq = fmaf(k[i], q[i], kq);
  }
  kk = warp_sum(kk);
  qq = warp_sum(qq);
  kq = warp_sum(kq);
  if (threadIdx.x == 0) {
    shared.dots[0] = kk;
    shared.dots[1] = qq;
    shared.dots[2] = kq;
  }
}

// Column `j` of the group's value heads: δ, the new column, o.
__device__ void step_column(const DeltaTask& task, const SequenceRows& rows, int key_head, int j,
                            const RecurrentShared& shared) {
  const int in_group = j / task.dv;
  const float *q = shared.row, *k = shared.row + task.dk;
  float* s = rows.state + task.delta_offset +
             (static_cast<int64_t>(key_head) * task.ratio + in_group) * task.dk * task.dv +
             j % task.dv;
  const float a = 1.0f / sqrtf(shared.dots[0] + 1e-6f);
  const float b = task.query_scale / sqrtf(shared.dots[1] + 1e-6f);
  const float beta = shared.gates[2 * in_group], e = shared.gates[2 * in_group + 1];
  float p = 0.0f, r = 0.0f;
  for (int i = 0; i < task.dk; ++i) {
    const float value = s[static_cast<int64_t>(i) * task.dv];
    p = fmaf(k[i], value, p);
    r = fmaf(q[i], value, r);
  }
  const float delta = beta * fmaf(-e * a, p, shared.row[2 * task.dk + j]);
  shared.o[j] = fmaf(shared.dots[2] * a * b, delta, e * b * r);
  const float step = a * delta;
  for (int i = 0; i < task.dk; ++i) {
    float& value = s[static_cast<int64_t>(i) * task.dv];
    value = fmaf(k[i], step, e * value);
  }
}

// A warp: the gated norm of a head.
__device__ void write_head(const DeltaTask& task, int h, int64_t at, const float* o) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const float* z = task.qkvz + at * task.qkvz_dim + z_column(task, h);
  float* out = task.out + (at * task.value_heads + h) * task.dv;
  float total = 0.0f;
  for (int j = lane; j < task.dv; j += kWarp) total = fmaf(o[j], o[j], total);
  const float inverse = 1.0f / sqrtf(warp_sum(total) / static_cast<float>(task.dv) + task.eps);
  for (int j = lane; j < task.dv; j += kWarp) out[j] = o[j] * inverse * task.norm[j] * silu(z[j]);
}

__global__ void __launch_bounds__(kThreads) delta_recurrent_kernel(DeltaTask task) {
  extern __shared__ float recurrent_shared[];
  const SequenceRows rows = task.sequences[blockIdx.y];
  const int key_head = static_cast<int>(blockIdx.x);
  const int values = task.ratio * task.dv;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  RecurrentShared shared;
  shared.row = recurrent_shared;
  shared.o = shared.row + 2 * task.dk + values;
  shared.dots = shared.o + values;
  shared.gates = shared.dots + 4;
  for (int t = 0; t < rows.num_tokens; ++t) {
    const int64_t at = rows.token_begin + t;
    convolve_token(task, rows, key_head, at, shared);
    __syncthreads();
    if (warp == 0) measure(task, shared);
    __syncthreads();
    for (int j = static_cast<int>(threadIdx.x); j < values; j += kThreads) {
      step_column(task, rows, key_head, j, shared);
    }
    __syncthreads();
    for (int i = warp; i < task.ratio; i += kThreads / kWarp) {
      write_head(task, key_head * task.ratio + i, at, shared.o + i * task.dv);
    }
  }
}

}  // namespace

void delta_recurrent(Queue& queue, const DeltaTask& task, const StepBatch& batch) {
  const Grid grid{.x = static_cast<unsigned>(task.key_heads),
                  .y = static_cast<unsigned>(batch.num_sequences)};
  const int64_t floats = 2 * task.dk + 2 * task.ratio * task.dv + 4 + 2 * task.ratio;
  HS_LAUNCH(queue, grid, Grid{.x = kThreads}, floats * static_cast<int64_t>(sizeof(float)),
            delta_recurrent_kernel, task);
}

}  // namespace hotset::cuda
