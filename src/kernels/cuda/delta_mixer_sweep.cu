// SPDX-License-Identifier: Apache-2.0
// The part of the chunked delta rule that goes from chunk to chunk with the state
// (delta_mixer_chunks.cuh has the formulas).
#include "kernels/cuda/delta_mixer_chunks.cuh"
#include "kernels/cuda/mma.cuh"

namespace hotset::cuda {
namespace {

constexpr int kChunk = kDeltaChunk;
constexpr int kThreads = kDeltaThreads;
constexpr int kMaxDim = kMaxDeltaChunkDim;
constexpr int kSlice = 32;            // columns of S
constexpr int kKeyPad = kMaxDim + 4;  // row length of tiles of keys

// A and B are filled asynchronously, each while the other one is in use:
//   p = K'·S   A: K'      o = q·S   B: q      S ← …   A: k      o += W·V'   B: W
struct SweepShared {
  float state[kMaxDim][kSlice];
  float a[kChunk][kKeyPad];
  float b[kChunk][kKeyPad];
  float values[kChunk][kSlice];  // V'
  float decays[2][2 * kChunk];   // of this chunk and the next: exp(G), exp(G_last − G)
};

constexpr int kRowsPerThread = 4;
constexpr int kColsPerThread = 2;
using Tile = float[kRowsPerThread][kColsPerThread];

// Where a thread's part of [64 × 32] lies.
struct Part {
  int r0;
  int c0;
  int column;  // of c0 in the head
};

// `rows` rows of 4 · vectors floats to a tile; the others become 0.
__device__ __forceinline__ void ask_for_vectors(float (*to)[kKeyPad], const float* from,
                                                int64_t stride, int vectors, int rows) {
#pragma unroll 4
  for (int at = static_cast<int>(threadIdx.x); at < kChunk * vectors; at += kThreads) {
    const int t = at / vectors, i = at % vectors * 4;
    const bool inside = t < rows;
    copy_async(shared_address(&to[t][i]), from + (inside ? t * stride + i : 0), inside);
  }
}

// The widths that matter divide by shifts.
__device__ __forceinline__ void ask_for_rows(float (*to)[kKeyPad], const float* from,
                                             int64_t stride, int width, int rows) {
  if (width == kMaxDim) {
    ask_for_vectors(to, from, stride, kMaxDim / 4, rows);
  } else if (width == kChunk) {
    ask_for_vectors(to, from, stride, kChunk / 4, rows);
  } else {
    ask_for_vectors(to, from, stride, width / 4, rows);
  }
}

// K' and the decays of a chunk; nothing when there is no such chunk.
__device__ __forceinline__ void ask_for_keys(const DeltaTask& task, const DeltaPass& pass,
                                             const DeltaChunk& chunk, float (&decays)[2 * kChunk],
                                             SweepShared& shared) {
  if (chunk.count > 0) {
    ask_for_rows(shared.a, pass.keys + chunk.slot * kChunk * task.dk, task.dk, task.dk, kChunk);
    if (threadIdx.x < 2 * kChunk / 4) {
      const auto i = static_cast<int>(threadIdx.x) * 4;
      copy_async(shared_address(decays + i), pass.decays + chunk.slot * 2 * kChunk + i, true);
    }
  }
  commit_async();
}

__device__ __forceinline__ void ask_for_queries(const DeltaTask& task, const DeltaChunk& chunk,
                                                int h, SweepShared& shared) {
  if (chunk.count > 0) {
    ask_for_rows(shared.b, query_row(task, chunk.row, h), task.channels, task.dk, chunk.count);
  }
  commit_async();
}

__device__ __forceinline__ float part(const float4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// sum[r][c] += Σ_k rows[r0 + r][k] · columns[k][c0 + c], k in fours below `depth`.
__device__ __forceinline__ void multiply(Tile& sum, const float (*rows)[kKeyPad], int r0,
                                         const float (*columns)[kSlice], int c0, int depth) {
#pragma unroll 4
  for (int k = 0; k < depth; k += 4) {
    float2 b[4];
#pragma unroll
    for (int u = 0; u < 4; ++u) b[u] = *reinterpret_cast<const float2*>(&columns[k + u][c0]);
#pragma unroll
    for (int r = 0; r < kRowsPerThread; ++r) {
      const float4 a = *reinterpret_cast<const float4*>(&rows[r0 + r][k]);
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        sum[r][0] = fmaf(part(a, u), b[u].x, sum[r][0]);
        sum[r][1] = fmaf(part(a, u), b[u].y, sum[r][1]);
      }
    }
  }
}

// U of the thread's part; 0 outside of the chunk and of the head.
__device__ __forceinline__ void load_u(const DeltaTask& task, const DeltaChunk& chunk, int h,
                                       const Part& at, Tile& u) {
#pragma unroll
  for (int r = 0; r < kRowsPerThread; ++r) {
    const bool inside = at.r0 + r < chunk.count && at.column < task.dv;
    const float2 pair = inside ? *reinterpret_cast<const float2*>(
                                     value_row(task, chunk.row + at.r0 + r, h) + at.column)
                               : make_float2(0.0f, 0.0f);
    u[r][0] = pair.x;
    u[r][1] = pair.y;
  }
}

// S ← exp(G_last)·S + (diag(exp(G_last − G))·k)ᵀ·V': eight rows by two columns a thread. Rows of S
// past dk become whatever lies there, and are not read.
__device__ __forceinline__ void write_state(int i0, int c0, const float* decays,
                                            SweepShared& shared) {
  constexpr int kRows = kMaxDim / 16;
  float sum[kRows][2];
  const float e = decays[kChunk - 1];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const float2 s = *reinterpret_cast<const float2*>(&shared.state[i0 + i][c0]);
    sum[i][0] = e * s.x;
    sum[i][1] = e * s.y;
  }
#pragma unroll 4
  for (int t = 0; t < kChunk; ++t) {
    const float4 k0 = *reinterpret_cast<const float4*>(&shared.a[t][i0]);
    const float4 k1 = *reinterpret_cast<const float4*>(&shared.a[t][i0 + 4]);
    const float2 v = *reinterpret_cast<const float2*>(&shared.values[t][c0]);
    const float to_end = decays[kChunk + t];
    const float x = to_end * v.x, y = to_end * v.y;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float k = i < 4 ? part(k0, i) : part(k1, i - 4);
      sum[i][0] = fmaf(k, x, sum[i][0]);
      sum[i][1] = fmaf(k, y, sum[i][1]);
    }
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    *reinterpret_cast<float2*>(&shared.state[i0 + i][c0]) = make_float2(sum[i][0], sum[i][1]);
  }
}

__device__ __forceinline__ void write_out(const DeltaTask& task, const DeltaChunk& chunk, int h,
                                          const Part& at, const Tile& o) {
  if (at.column >= task.dv) return;
#pragma unroll
  for (int r = 0; r < kRowsPerThread; ++r) {
    if (at.r0 + r >= chunk.count) break;
    float* out = task.out + ((chunk.row + at.r0 + r) * task.value_heads + h) * task.dv;
    *reinterpret_cast<float2*>(out + at.column) = make_float2(o[r][0], o[r][1]);
  }
}

// Of A and B, what this chunk reads first is on its way; so is that of the next one afterwards.
__device__ __forceinline__ void sweep_chunk(const DeltaTask& task, const DeltaPass& pass,
                                            const DeltaChunk& chunk, const DeltaChunk& next, int h,
                                            int parity, const Part& at, SweepShared& shared) {
  const float* decays = shared.decays[parity];
  Tile u, p = {}, o = {};
  load_u(task, chunk, h, at, u);
  wait_async<1>();
  __syncthreads();
  multiply(p, shared.a, at.r0, shared.state, at.c0, task.dk);
#pragma unroll
  for (int r = 0; r < kRowsPerThread; ++r) {
    const bool inside = at.r0 + r < chunk.count;
    *reinterpret_cast<float2*>(&shared.values[at.r0 + r][at.c0]) =
        inside ? make_float2(u[r][0] - p[r][0], u[r][1] - p[r][1]) : make_float2(0.0f, 0.0f);
  }
  __syncthreads();
  ask_for_rows(shared.a, key_row(task, chunk.row, h), task.channels, task.dk, chunk.count);
  commit_async();

  wait_async<1>();
  __syncthreads();
  multiply(o, shared.b, at.r0, shared.state, at.c0, task.dk);
#pragma unroll
  for (int r = 0; r < kRowsPerThread; ++r) {
    o[r][0] *= decays[at.r0 + r];
    o[r][1] *= decays[at.r0 + r];
  }
  __syncthreads();
  ask_for_rows(shared.b, pass.weights + chunk.slot * kChunk * kChunk, kChunk, kChunk, kChunk);
  commit_async();

  wait_async<1>();
  __syncthreads();
  write_state(at.r0 / kRowsPerThread * (kMaxDim / 16), at.c0, decays, shared);
  __syncthreads();
  ask_for_keys(task, pass, next, shared.decays[1 - parity], shared);

  wait_async<1>();
  __syncthreads();
  multiply(o, shared.b, at.r0, shared.values, at.c0, kChunk);
  write_out(task, chunk, h, at, o);
  __syncthreads();
  ask_for_queries(task, next, h, shared);
}

// Block (x, y, z): slice x of value head y in sequence z of the pass.
__global__ void __launch_bounds__(kThreads, 2) delta_sweep_kernel(DeltaTask task, DeltaPass pass) {
  extern __shared__ float4 sweep_shared[];
  SweepShared& shared = *reinterpret_cast<SweepShared*>(sweep_shared);
  const auto h = static_cast<int>(blockIdx.y), sequence = static_cast<int>(blockIdx.z);
  const int first_column = static_cast<int>(blockIdx.x) * kSlice;
  const SequenceRows rows = task.sequences[pass.first_sequence + sequence];
  if (rows.num_tokens <= pass.first_chunk * kChunk) return;
  const int c0 = static_cast<int>(threadIdx.x) % 16 * kColsPerThread;
  const Part at{static_cast<int>(threadIdx.x) / 16 * kRowsPerThread, c0, first_column + c0};
  const auto chunk_at = [&](int n) {
    DeltaChunk chunk = chunk_of(task, pass, sequence, n, h);
    if (n >= pass.num_chunks) chunk.count = 0;
    return chunk;
  };
  DeltaChunk chunk = chunk_at(0);
  ask_for_keys(task, pass, chunk, shared.decays[0], shared);
  ask_for_queries(task, chunk, h, shared);

  float* state = rows.state + task.delta_offset + static_cast<int64_t>(h) * task.dk * task.dv;
  const int c = static_cast<int>(threadIdx.x) % kSlice;
  const bool has_column = first_column + c < task.dv;
  for (int i = static_cast<int>(threadIdx.x) / kSlice; i < kMaxDim; i += kThreads / kSlice) {
    const bool inside = has_column && i < task.dk;
    shared.state[i][c] = inside ? state[i * task.dv + first_column + c] : 0.0f;
  }
  for (int n = 0; chunk.count > 0; ++n) {
    const DeltaChunk next = chunk_at(n + 1);
    sweep_chunk(task, pass, chunk, next, h, n % 2, at, shared);
    chunk = next;
  }
  for (int i = static_cast<int>(threadIdx.x) / kSlice; i < task.dk; i += kThreads / kSlice) {
    if (has_column) state[i * task.dv + first_column + c] = shared.state[i][c];
  }
}

}  // namespace

void delta_sweep(Queue& queue, const DeltaTask& task, const DeltaPass& pass, int num_sequences) {
  const Grid grid{.x = blocks_for(task.dv, kSlice),
                  .y = static_cast<unsigned>(task.value_heads),
                  .z = static_cast<unsigned>(num_sequences)};
  HS_LAUNCH(queue, grid, Grid{.x = kThreads}, static_cast<int64_t>(sizeof(SweepShared)),
            delta_sweep_kernel, task, pass);
}

}  // namespace hotset::cuda
