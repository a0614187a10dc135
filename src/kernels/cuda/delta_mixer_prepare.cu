// SPDX-License-Identifier: Apache-2.0
// The part of the chunked delta rule that does not depend on the state, all chunks of a pass at
// once (delta_mixer_chunks.cuh has the formulas).
#include "kernels/cuda/delta_mixer_chunks.cuh"

namespace hotset::cuda {
namespace {

constexpr int kChunk = kDeltaChunk;
constexpr int kThreads = kDeltaThreads;
constexpr int kDepth = 32;        // of the inner dimension, at a time, in `prepare`
constexpr int kPad = kChunk + 4;  // row length of transposed tiles

__device__ __forceinline__ float4 as4(const float* at) {
  return *reinterpret_cast<const float4*>(at);
}

struct PrepareShared {
  float keys[kDepth][kPad];     // a slice of kᵀ
  float queries[kDepth][kPad];  // and of qᵀ
  float lower[kChunk][kPad];    // column j: β_i·(k_i·k_j)·D_ij for i > j
  float high[kChunk];           // G, in two floats
  float low[kChunk];
  float beta[kChunk];
};

// The running sum of the log decays, in double as on the CPU, by the first warp: two tokens a lane.
__device__ void sum_decays(const DeltaTask& task, const DeltaChunk& chunk, int h,
                           const DeltaPass& pass, PrepareShared& shared) {
  const int lane = static_cast<int>(threadIdx.x);
  float g[2], beta[2];
  for (int i = 0; i < 2; ++i) {
    const int t = 2 * lane + i;
    const int64_t at = (chunk.row + t) * task.value_heads + h;
    g[i] = t < chunk.count ? task.decay[at] : 0.0f;
    beta[i] = t < chunk.count ? task.beta[at] : 0.0f;
  }
  double sum = static_cast<double>(g[0]) + g[1];
  for (int step = 1; step < kWarp; step *= 2) {
    const double before = __shfl_up_sync(kAllLanes, sum, step);
    if (lane >= step) sum += before;
  }
  const double last = __shfl_sync(kAllLanes, sum, kWarp - 1);
  float* decays = pass.decays + chunk.slot * 2 * kChunk;
  for (int i = 0; i < 2; ++i) {
    const int t = 2 * lane + i;
    const double at = i == 1 ? sum : sum - g[1];
    shared.high[t] = static_cast<float>(at);
    shared.low[t] = static_cast<float>(at - shared.high[t]);
    shared.beta[t] = beta[i];
    decays[t] = expf(static_cast<float>(at));
    decays[kChunk + t] = expf(static_cast<float>(last - at));
  }
}

// A thread's share of a slice of k and q: four columns of rows t and t + 32.
struct DepthVectors {
  static constexpr int kAcross = kDepth / 4;  // threads along the slice
  static constexpr int kRows = kThreads / kAcross;
  static constexpr int kEach = kChunk / kRows;
  float4 keys[kEach];
  float4 queries[kEach];

  __device__ __forceinline__ void load(const DeltaTask& task, const DeltaChunk& chunk, int h,
                                       int depth) {
    const int i = depth + static_cast<int>(threadIdx.x) % kAcross * 4;
#pragma unroll
    for (int n = 0; n < kEach; ++n) {
      const int t = static_cast<int>(threadIdx.x) / kAcross + n * kRows;
      const bool inside = t < chunk.count && i < task.dk;
      const float4 zero = {};
      keys[n] = inside ? as4(key_row(task, chunk.row + t, h) + i) : zero;
      queries[n] = inside ? as4(query_row(task, chunk.row + t, h) + i) : zero;
    }
  }
  __device__ __forceinline__ void put(PrepareShared& shared) const {
    const int i = static_cast<int>(threadIdx.x) % kAcross * 4;
#pragma unroll
    for (int n = 0; n < kEach; ++n) {
      const int t = static_cast<int>(threadIdx.x) / kAcross + n * kRows;
      shared.keys[i][t] = keys[n].x;
      shared.keys[i + 1][t] = keys[n].y;
      shared.keys[i + 2][t] = keys[n].z;
      shared.keys[i + 3][t] = keys[n].w;
      shared.queries[i][t] = queries[n].x;
      shared.queries[i + 1][t] = queries[n].y;
      shared.queries[i + 2][t] = queries[n].z;
      shared.queries[i + 3][t] = queries[n].w;
    }
  }
};

__device__ __forceinline__ void outer4(float (&sum)[4][4], const float4& a, const float4& b) {
  const float rows[4] = {a.x, a.y, a.z, a.w}, cols[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(rows[i], cols[j], sum[i][j]);
  }
}

// k·kᵀ and q·kᵀ by tiles of 4 × 4 a thread, times D: the first to shared memory, the second to W.
__device__ void decay_matrices(const DeltaTask& task, const DeltaChunk& chunk, int h,
                               float* weights, PrepareShared& shared) {
  const int i0 = static_cast<int>(threadIdx.x) / 16 * 4,
            j0 = static_cast<int>(threadIdx.x) % 16 * 4;
  float kk[4][4] = {}, qk[4][4] = {};
  DepthVectors slice;
  slice.load(task, chunk, h, 0);
  for (int depth = 0; depth < task.dk; depth += kDepth) {
    __syncthreads();
    slice.put(shared);
    __syncthreads();
    slice.load(task, chunk, h, depth + kDepth);  // for the next round
#pragma unroll 4
    for (int d = 0; d < kDepth; ++d) {
      const float4 k = *reinterpret_cast<const float4*>(&shared.keys[d][j0]);
      outer4(kk, *reinterpret_cast<const float4*>(&shared.keys[d][i0]), k);
      outer4(qk, *reinterpret_cast<const float4*>(&shared.queries[d][i0]), k);
    }
  }
#pragma unroll
  for (int a = 0; a < 4; ++a) {
    const int i = i0 + a;
    float w[4];
#pragma unroll
    for (int b = 0; b < 4; ++b) {
      const int j = j0 + b;
      const float gap = (shared.high[i] - shared.high[j]) + (shared.low[i] - shared.low[j]);
      const float d = j <= i ? expf(gap) : 0.0f;
      w[b] = j <= i ? qk[a][b] * d : 0.0f;
      shared.lower[j][i] = j < i ? shared.beta[i] * kk[a][b] * d : 0.0f;
    }
    *reinterpret_cast<float4*>(weights + i * kChunk + j0) = make_float4(w[0], w[1], w[2], w[3]);
  }
}

// One column of U or K': x ← (I − A)⁻¹·x by forward substitution, all 64 rows in registers.
__device__ __forceinline__ void solve(float (&x)[kChunk], const PrepareShared& shared) {
#pragma unroll
  for (int j = 0; j < kChunk - 1; ++j) {
#pragma unroll
    for (int i = (j + 1) / 4 * 4; i < kChunk; i += 4) {
      const float4 a = *reinterpret_cast<const float4*>(&shared.lower[j][i]);
      if (i > j) x[i] = fmaf(-a.x, x[j], x[i]);
      if (i + 1 > j) x[i + 1] = fmaf(-a.y, x[j], x[i + 1]);
      if (i + 2 > j) x[i + 2] = fmaf(-a.z, x[j], x[i + 2]);
      if (i + 3 > j) x[i + 3] = fmaf(-a.w, x[j], x[i + 3]);
    }
  }
}

// Columns 0 … dv−1 are U's, the next dk are those of K'.
__device__ void solve_column(const DeltaTask& task, const DeltaChunk& chunk, int h, int column,
                             const DeltaPass& pass, const PrepareShared& shared) {
  const bool is_value = column < task.dv;
  const float* from = is_value ? value_row(task, chunk.row, h) + column
                               : key_row(task, chunk.row, h) + column - task.dv;
  const float* decays = pass.decays + chunk.slot * 2 * kChunk;
  float x[kChunk];
#pragma unroll
  for (int t = 0; t < kChunk; ++t) {
    const float value = t < chunk.count ? from[static_cast<int64_t>(t) * task.channels] : 0.0f;
    x[t] = shared.beta[t] * (is_value ? value : decays[t] * value);
  }
  solve(x, shared);
  if (is_value) {
    float* to = value_row(task, chunk.row, h) + column;
#pragma unroll
    for (int t = 0; t < kChunk; ++t) {
      if (t < chunk.count) to[static_cast<int64_t>(t) * task.channels] = x[t];
    }
  } else {
    float* to = pass.keys + chunk.slot * kChunk * task.dk + column - task.dv;
#pragma unroll
    for (int t = 0; t < kChunk; ++t) to[t * task.dk] = x[t];
  }
}

// Block (x, y, z): chunk x of value head y in sequence z of the pass.
__global__ void __launch_bounds__(kThreads) delta_prepare_kernel(DeltaTask task, DeltaPass pass) {
  __shared__ __align__(16) PrepareShared shared;
  const auto h = static_cast<int>(blockIdx.y);
  const DeltaChunk chunk =
      chunk_of(task, pass, static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.x), h);
  if (chunk.count <= 0) return;
  if (threadIdx.x < kWarp) sum_decays(task, chunk, h, pass, shared);
  decay_matrices(task, chunk, h, pass.weights + chunk.slot * kChunk * kChunk, shared);
  __syncthreads();
  for (int column = static_cast<int>(threadIdx.x); column < task.dv + task.dk; column += kThreads) {
    solve_column(task, chunk, h, column, pass, shared);
  }
}

}  // namespace

void delta_prepare(Queue& queue, const DeltaTask& task, const DeltaPass& pass, int num_sequences) {
  const Grid grid{.x = static_cast<unsigned>(pass.num_chunks),
                  .y = static_cast<unsigned>(task.value_heads),
                  .z = static_cast<unsigned>(num_sequences)};
  HS_LAUNCH(queue, grid, Grid{.x = kThreads}, 0, delta_prepare_kernel, task, pass);
}

}  // namespace hotset::cuda
