// SPDX-License-Identifier: Apache-2.0
// The part of the chunked delta rule that does not depend on the state, all chunks of a pass at
// once (delta_mixer_chunks.cuh has the formulas).
//
// Products are made by tensor cores. Only L itself is found in fp32, by forward substitution, a
// thread a column; meanwhile the block's other warps scale v and k.
#include "kernels/cuda/delta_mixer_chunks.cuh"

namespace hotset::cuda {
namespace {

constexpr int kChunk = kDeltaChunk;
constexpr int kThreads = kDeltaThreads;
constexpr int kPad = kChunk + 4;  // row length of `lower`

struct PrepareShared {
  std::byte keys[HeadPlanes::kBytes];       // k, then β·exp(G)·k
  std::byte rows[HeadPlanes::kBytes];       // q, then β·v
  std::byte inverse[SquarePlanes::kBytes];  // L
  float lower[kChunk][kPad];                // column j: β_i·(k_i·k_j)·D_ij for i > j
  float high[kChunk];                       // G, in two floats
  float low[kChunk];
  float growth[kChunk];  // exp(G)
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
    shared.growth[t] = expf(static_cast<float>(at));
    shared.beta[t] = beta[i];
    decays[t] = shared.growth[t];
    decays[kChunk + t] = expf(static_cast<float>(last - at));
  }
}

// k·kᵀ and q·kᵀ, a warp 16 rows and 32 columns, times D: the first to shared memory, the second to
// W. Tiles above the diagonal are 0.
__device__ __forceinline__ void decay_matrices(float* weights, PrepareShared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int i0 = warp % 4 * 16, j0 = warp / 4 * 32;
  const uint32_t keys = shared_address(shared.keys), queries = shared_address(shared.rows);
  float kk[4][4] = {}, qk[4][4] = {};
  if (j0 <= i0) {
#pragma unroll 2
    for (int k = 0; k < kDeltaDim / 16; ++k) {
      HeadPlanes::Fragment key, query, right;
      HeadPlanes::load_left(key, keys, i0, k);
      HeadPlanes::load_left(query, queries, i0, k);
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        HeadPlanes::load_right_transposed(right, keys, j0 + 16 * n, k);
        multiply_planes(kk + 2 * n, key, right);
        multiply_planes(qk + 2 * n, query, right);
      }
    }
  }
#pragma unroll
  for (int n = 0; n < 4; ++n) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int i = i0 + lane / 4 + 8 * half, j = j0 + 8 * n + lane % 4 * 2;
      float w[2];
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const float gap =
            (shared.high[i] - shared.high[j + c]) + (shared.low[i] - shared.low[j + c]);
        const float d = j + c <= i ? expf(gap) : 0.0f;
        w[c] = j + c <= i ? qk[n][2 * half + c] * d : 0.0f;
        shared.lower[j + c][i] = j + c < i ? shared.beta[i] * kk[n][2 * half + c] * d : 0.0f;
      }
      const DeltaHalves halves = delta_split(w[0], w[1]);
      auto* to = reinterpret_cast<uint32_t*>(weights + i * kChunk) + j / 2;
      to[0] = halves.high;
      to[kChunk / 2] = halves.low;
    }
  }
}

// Column `c` of L by forward substitution, all 64 rows in registers.
__device__ __forceinline__ void invert_column(int c, PrepareShared& shared) {
  float x[kChunk];
#pragma unroll
  for (int t = 0; t < kChunk; ++t) x[t] = t == c ? 1.0f : 0.0f;
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
#pragma unroll
  for (int t = 0; t < kChunk; ++t) {
    const __nv_bfloat16 high = __float2bfloat16_rn(x[t]);
    std::byte* to = shared.inverse + SquarePlanes::offset(t, c / 8) + c % 8 * 2;
    *reinterpret_cast<__nv_bfloat16*>(to) = high;
    *reinterpret_cast<__nv_bfloat16*>(to + SquarePlanes::kPlaneBytes) =
        __float2bfloat16_rn(x[t] - __bfloat162float(high));
  }
}

// By the threads behind the first 64: β·v in place of q, β·exp(G)·k in place of k.
__device__ __forceinline__ void scale_rows(const DeltaTask& task, const DeltaChunk& chunk, int h,
                                           PrepareShared& shared) {
  for (int at = static_cast<int>(threadIdx.x) - kChunk; at < kChunk * kDeltaDim / 4;
       at += kThreads - kChunk) {
    const int t = at / (kDeltaDim / 4), i = at % (kDeltaDim / 4) * 4;
    const float beta = shared.beta[t], factor = beta * shared.growth[t];
    float4 v = {};
    if (t < chunk.count) {
      v = *reinterpret_cast<const float4*>(value_row(task, chunk.row + t, h) + i);
    }
    HeadPlanes::put(shared.rows, t, i, beta * v.x, beta * v.y);
    HeadPlanes::put(shared.rows, t, i + 2, beta * v.z, beta * v.w);
    const std::byte* from = shared.keys + HeadPlanes::offset(t, i / 8) + i % 8 * 2;
#pragma unroll
    for (int pair = 0; pair < 2; ++pair) {
      const auto* high = reinterpret_cast<const __nv_bfloat162*>(from + 4 * pair);
      const auto* low =
          reinterpret_cast<const __nv_bfloat162*>(from + HeadPlanes::kPlaneBytes + 4 * pair);
      const float2 a = __bfloat1622float2(*high), b = __bfloat1622float2(*low);
      HeadPlanes::put(shared.keys, t, i + 2 * pair, factor * (a.x + b.x), factor * (a.y + b.y));
    }
  }
}

// L times a matrix of 64 × 128: a warp 16 rows and 64 columns. put(t, i, a, b) takes the results.
template <typename Put>
__device__ __forceinline__ void times_inverse(const PrepareShared& shared, const std::byte* matrix,
                                              const Put& put) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int i0 = warp % 4 * 16, j0 = warp / 4 * 64;
  const uint32_t inverse = shared_address(shared.inverse), right_at = shared_address(matrix);
  float sums[8][4] = {};
#pragma unroll
  for (int k = 0; k < kChunk / 16; ++k) {
    if (16 * k > i0) break;
    SquarePlanes::Fragment left;
    SquarePlanes::load_left(left, inverse, i0, k);
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      HeadPlanes::Fragment right;
      HeadPlanes::load_right(right, right_at, j0 + 16 * n, k);
      multiply_planes(sums + 2 * n, left, right);
    }
  }
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const int t = i0 + lane / 4, i = j0 + 8 * n + lane % 4 * 2;
    put(t, i, sums[n][0], sums[n][1]);
    put(t + 8, i, sums[n][2], sums[n][3]);
  }
}

// Block (x, y, z): chunk x of value head y in sequence z of the pass.
__global__ void __launch_bounds__(kThreads, 2)
    delta_prepare_kernel(DeltaTask task, DeltaPass pass) {
  extern __shared__ __align__(1024) float4 prepare_shared[];
  PrepareShared& shared = *reinterpret_cast<PrepareShared*>(prepare_shared);
  const auto h = static_cast<int>(blockIdx.y);
  const DeltaChunk chunk =
      chunk_of(task, pass, static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.x), h);
  if (chunk.count <= 0) return;
  HeadPlanes::ask_for(shared.keys, key_row(task, chunk.row, h), task.channels, chunk.count);
  HeadPlanes::ask_for(shared.rows, query_row(task, chunk.row, h), task.channels, chunk.count);
  commit_async();
  if (threadIdx.x < kWarp) sum_decays(task, chunk, h, pass, shared);
  wait_async<0>();
  __syncthreads();
  decay_matrices(pass.weights + chunk.slot * kChunk * kChunk, shared);
  __syncthreads();
  if (threadIdx.x < kChunk) {
    invert_column(static_cast<int>(threadIdx.x), shared);
  } else {
    scale_rows(task, chunk, h, shared);
  }
  __syncthreads();
  times_inverse(shared, shared.rows, [&](int t, int i, float a, float b) {
    if (t >= chunk.count) return;
    *reinterpret_cast<float2*>(value_row(task, chunk.row + t, h) + i) = make_float2(a, b);
  });
  float* keys = pass.keys + chunk.slot * kChunk * kDeltaDim;
  times_inverse(shared, shared.keys, [&](int t, int i, float a, float b) {
    const DeltaHalves halves = delta_split(a, b);
    auto* to = reinterpret_cast<uint32_t*>(keys + t * kDeltaDim) + i / 2;
    to[0] = halves.high;
    to[kDeltaDim / 2] = halves.low;
  });
}

}  // namespace

void delta_prepare(Queue& queue, const DeltaTask& task, const DeltaPass& pass, int num_sequences) {
  const Grid grid{.x = static_cast<unsigned>(pass.num_chunks),
                  .y = static_cast<unsigned>(task.value_heads),
                  .z = static_cast<unsigned>(num_sequences)};
  HS_LAUNCH(queue, grid, Grid{.x = kThreads}, static_cast<int64_t>(sizeof(PrepareShared)),
            delta_prepare_kernel, task, pass);
}

}  // namespace hotset::cuda
