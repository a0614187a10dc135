// SPDX-License-Identifier: Apache-2.0
// What the kernels of the DeltaNet mixer share: the layer and the step as a kernel sees them, the
// way from a channel to its column of qkvz, and the gates. Three ways lead from qkvz to out:
//
//   delta_step       a few tokens a sequence, heads of 128: one kernel, the state in registers
//   delta_recurrent  any shape, any number of tokens: one kernel, the state in memory
//   delta_chunks     long parts: convolution and norms for all rows, then chunks of 64 tokens as
//                    matrix products
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
inline constexpr int kMaxStepTokens = 8;       // that delta_step takes a sequence
inline constexpr int kDeltaStepDim = 128;      // dk and dv of delta_step
inline constexpr int kMaxDeltaChunkDim = 128;  // dk and dv of delta_chunks, at most

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

struct Gates {
  float beta;
  float log_decay;
};

// exp() is 0 far above the least log decay already; the limits keep infinities out of sums.
__device__ __forceinline__ Gates gates_of(const DeltaTask& task, int64_t row, int h) {
  const float* pair =
      task.ba + row * 2 * task.value_heads + h / task.ratio * 2 * task.ratio + h % task.ratio;
  const float x = pair[task.ratio] + task.dt_bias[h];
  const float softplus = x > 20.0f ? x : log1pf(expf(x));
  const float rate = fminf(expf(task.a_log[h]), 1e30f);
  return {sigmoid(pair[0]), fmaxf(-rate * softplus, -1e4f)};
}

// The causal convolution of one channel: the inputs before, and its taps.
struct ConvWindow {
  float past[kMaxTaps - 1];
  float weight[kMaxTaps];

  __device__ __forceinline__ void load_weights(const DeltaTask& task, int c) {
#pragma unroll
    for (int j = 0; j < kMaxTaps; ++j) {
      weight[j] = j < task.taps ? task.conv1d[static_cast<int64_t>(j) * task.channels + c] : 0.0f;
    }
  }
  __device__ __forceinline__ void load_state(const DeltaTask& task, const float* state, int c) {
#pragma unroll
    for (int j = 0; j < kMaxTaps - 1; ++j) {
      past[j] = j < task.taps - 1 ? state[static_cast<int64_t>(j) * task.channels + c] : 0.0f;
    }
  }
  __device__ __forceinline__ void store_state(const DeltaTask& task, float* state, int c) const {
#pragma unroll
    for (int j = 0; j < kMaxTaps - 1; ++j) {
      if (j < task.taps - 1) state[static_cast<int64_t>(j) * task.channels + c] = past[j];
    }
  }
  // silu of the sum, as the CPU adds it; the window moves on by x.
  __device__ __forceinline__ float step(const DeltaTask& task, float x) {
    float sum = 0.0f, last = 0.0f;
#pragma unroll
    for (int j = 0; j < kMaxTaps; ++j) {
      if (j < kMaxTaps - 1 && j < task.taps - 1) sum = fmaf(weight[j], past[j], sum);
      if (j == task.taps - 1) last = weight[j];
    }
    sum = fmaf(last, x, sum);
#pragma unroll
    for (int j = 0; j < kMaxTaps - 1; ++j) {
      const float next = j + 1 < kMaxTaps - 1 ? past[j + 1 < kMaxTaps - 1 ? j + 1 : j] : x;
      past[j] = j == task.taps - 2 ? x : next;
    }
    return silu(sum);
  }
};

// Launchers; each puts its kernels on the queue.
void delta_step(Queue& queue, const DeltaTask& task, const StepBatch& batch);
void delta_recurrent(Queue& queue, const DeltaTask& task, const StepBatch& batch);
void delta_rows_before(Queue& queue, const DeltaTask& task, const StepBatch& batch);
void delta_rows_after(Queue& queue, const DeltaTask& task, const StepBatch& batch);
void delta_chunks(Queue& queue, const DeltaTask& task, const StepBatch& batch);

}  // namespace hotset::cuda
