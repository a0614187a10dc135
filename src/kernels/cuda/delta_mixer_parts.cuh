// SPDX-License-Identifier: Apache-2.0
// What the kernels of the DeltaNet mixer share: the layer and the step as a kernel sees them, the
// way from a channel to its column of qkvz, and the gates. Three ways lead from qkvz to out:
//
//   delta_step       a few tokens a sequence, heads of 128: one kernel, the state in registers
//   delta_recurrent  any shape, any number of tokens: one kernel, the state in memory
//   delta_chunks     long parts, heads of 128: convolution and norms for all rows, then chunks of
//   64
//                    tokens as matrix products
#pragma once

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/delta_mixer.h"

namespace hotset::cuda {

struct DeltaTask {
  int key_heads;
  int value_heads;
  int ratio;  // value heads of a key head
  int dk;
  int dv;
  int taps;  // conv_kernel
  int channels;
  int group_dim;  // columns of a key head in qkvz: q, k, ratio v's, ratio z's
  int qkvz_dim;
  float eps;
  float query_scale;  // dk^-½
  const float* conv1d;
  const float* a_log;
  const float* dt_bias;
  const float* norm;
  int64_t delta_offset;
  int64_t conv_offset;
  const SequenceRows* sequences;
  const float* qkvz;
  const float* ba;
  float* mixed;
  float* beta;
  float* decay;
  float* out;
};

inline constexpr int kMaxTaps = 8;
inline constexpr int kMaxStepTokens = 8;  // that delta_step takes a sequence
inline constexpr int kDeltaDim = 128;     // dk and dv of delta_step and delta_chunks

// Where a row's z of value head h begins in qkvz.
__device__ __forceinline__ int z_column(const DeltaTask& task, int h) {
  return h / task.ratio * task.group_dim + 2 * task.dk + (task.ratio + h % task.ratio) * task.dv;
}

// The column of qkvz that channel c of `mixed` comes from.
__device__ __forceinline__ int qkvz_column(const DeltaTask& task, int c) {
  const int key_dim = task.key_heads * task.dk;
  if (c < 2 * key_dim) {
    const int in = c % key_dim;
    return in / task.dk * task.group_dim + (c < key_dim ? 0 : task.dk) + in % task.dk;
  }
  const int in = c - 2 * key_dim, values = task.ratio * task.dv;
  return in / values * task.group_dim + 2 * task.dk + in % values;
}

// What the gates of a row's value head are made from; loaded apart, so that the loads can go ahead.
struct GateInputs {
  float b;
  float a;
  float dt_bias;
  float a_log;
};

__device__ __forceinline__ GateInputs gate_inputs(const DeltaTask& task, int64_t row, int h) {
  const float* pair =
      task.ba + row * 2 * task.value_heads + h / task.ratio * 2 * task.ratio + h % task.ratio;
  return {pair[0], pair[task.ratio], task.dt_bias[h], task.a_log[h]};
}

struct Gates {
  float beta;
  float log_decay;
};

// exp() is 0 far above the least log decay already; the limits keep infinities out of sums.
__device__ __forceinline__ Gates gates_of(const GateInputs& in) {
  const float x = in.a + in.dt_bias;
  const float softplus = x > 20.0f ? x : log1pf(expf(x));
  const float rate = fminf(expf(in.a_log), 1e30f);
  return {sigmoid(in.b), fmaxf(-rate * softplus, -1e4f)};
}

// The causal convolution of one channel: the inputs before, and its taps. kTaps 0: task.taps.
template <int kTaps>
struct ConvWindow {
  static constexpr int kMost = kTaps > 0 ? kTaps : kMaxTaps;
  float past[kMost - 1];  // the newest last: taps that are not there are 0 in front
  float weight[kMost];

  // How many of the first entries a kernel with fewer taps leaves out.
  __device__ __forceinline__ static int missing(const DeltaTask& task) {
    return kTaps > 0 ? 0 : kMaxTaps - task.taps;
  }
  __device__ __forceinline__ void load_weights(const DeltaTask& task, int c) {
    const int skip = missing(task);
#pragma unroll
    for (int j = 0; j < kMost; ++j) {
      weight[j] =
          j >= skip ? task.conv1d[static_cast<int64_t>(j - skip) * task.channels + c] : 0.0f;
    }
  }
  // past_of(j): the input j rows after the oldest one that counts.
  template <typename PastOf>
  __device__ __forceinline__ void load_past(const DeltaTask& task, const PastOf& past_of) {
    const int skip = missing(task);
#pragma unroll
    for (int j = 0; j < kMost - 1; ++j) past[j] = j >= skip ? past_of(j - skip) : 0.0f;
  }
  __device__ __forceinline__ void load_state(const DeltaTask& task, const float* state, int c) {
    load_past(task, [&](int j) { return state[static_cast<int64_t>(j) * task.channels + c]; });
  }
  __device__ __forceinline__ void store_state(const DeltaTask& task, float* state, int c) const {
    const int skip = missing(task);
#pragma unroll
    for (int j = 0; j < kMost - 1; ++j) {
      if (j >= skip) state[static_cast<int64_t>(j - skip) * task.channels + c] = past[j];
    }
  }
  // silu of the sum, added in the CPU's order; the window moves on by x.
  __device__ __forceinline__ float step(float x) {
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < kMost - 1; ++j) sum = fmaf(weight[j], past[j], sum);
    sum = fmaf(weight[kMost - 1], x, sum);
#pragma unroll
    for (int j = 0; j < kMost - 2; ++j) past[j] = past[j + 1];
    past[kMost - 2] = x;
    return silu(sum);
  }
};

// Calls launch.template operator()<taps>() with the number of taps where a kernel is made for it.
template <typename Launch>
void with_taps(const DeltaTask& task, const Launch& launch) {
  if (task.taps == 4) {
    launch.template operator()<4>();
  } else {
    launch.template operator()<0>();
  }
}

// Launchers; each puts its kernels on the queue.
void delta_step(Queue& queue, const DeltaTask& task, const StepBatch& batch);
void delta_recurrent(Queue& queue, const DeltaTask& task, const StepBatch& batch);
void delta_rows_before(Queue& queue, const DeltaTask& task, const StepBatch& batch);
void delta_rows_after(Queue& queue, const DeltaTask& task, const StepBatch& batch);
void delta_chunks(Queue& queue, const DeltaTask& task, const StepBatch& batch);

}  // namespace hotset::cuda
