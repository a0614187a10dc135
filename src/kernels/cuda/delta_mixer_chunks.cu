// SPDX-License-Identifier: Apache-2.0
// The delta rule over chunks of 64 tokens (formulas in kernels/delta_rule.h), in fp32. What does
// not depend on the state is computed for all chunks at once; with L = (I − A)⁻¹:
//
//   prepare   U = L·diag(β)·v,  K' = L·diag(β·exp G)·k,  W = lower((q·kᵀ) ∘ D)     per chunk, head
//   sweep     V' = U − K'·S;   O = diag(exp G)·(q·S) + W·V';   S ← exp(G_last)·S + (…k)ᵀ·V'
//             chunk after chunk, per head and slice of 32 of S's columns, which stay in shared
//             memory
//
// U replaces v in `mixed`; K', W and the decays of a pass of chunks live in scratch.
#include <algorithm>

#include "kernels/cuda/delta_mixer.h"
#include "kernels/cuda/delta_mixer_parts.cuh"

namespace hotset::cuda {
namespace {

constexpr int kChunk = 64;
constexpr int kThreads = 256;
constexpr int kSlice = 32;  // columns of S
constexpr int kMaxDim = kMaxDeltaChunkDim;
constexpr int kDepth = 32;            // of the inner dimension, at a time, in `prepare`
constexpr int kPad = kChunk + 4;      // row length of transposed tiles
constexpr int kKeyPad = kMaxDim + 4;  // row length of tiles of keys
constexpr int64_t kScratchBytes = int64_t{32} << 20;

// The chunks of a pass: sequences first_sequence …, of each the chunks first_chunk ….
struct Pass {
  int first_sequence;
  int first_chunk;
  int num_chunks;
  float* keys;     // K' [slot][64][dk]
  float* weights;  // W [slot][64][64]
  float* decays;   // [slot][exp(G) 64, exp(G_last − G) 64]
};

struct Chunk {
  int64_t row;   // its first row
  int count;     // tokens, at most 64; ≤ 0: there is no such chunk
  int64_t slot;  // in the scratch of the pass
};

__device__ __forceinline__ Chunk chunk_of(const DeltaTask& task, const Pass& pass, int sequence,
                                          int chunk, int h) {
  const SequenceRows rows = task.sequences[pass.first_sequence + sequence];
  const int first = (pass.first_chunk + chunk) * kChunk;
  return {rows.token_begin + first, min(kChunk, rows.num_tokens - first),
          (static_cast<int64_t>(sequence) * pass.num_chunks + chunk) * task.value_heads + h};
}

__device__ __forceinline__ const float* query_row(const DeltaTask& task, int64_t row, int h) {
  return task.mixed + row * task.channels + h / task.ratio * task.dk;
}
__device__ __forceinline__ const float* key_row(const DeltaTask& task, int64_t row, int h) {
  return query_row(task, row, h) + task.key_heads * task.dk;
}
__device__ __forceinline__ float* value_row(const DeltaTask& task, int64_t row, int h) {
  return task.mixed + row * task.channels + 2 * task.key_heads * task.dk + h * task.dv;
}

// ── prepare ─────────────────────────────────────────────────────────────────────────────────────

struct PrepareShared {
  float keys[kDepth][kPad];     // a slice of kᵀ
  float queries[kDepth][kPad];  // and of qᵀ
  float lower[kChunk][kPad];    // column j: β_i·(k_i·k_j)·D_ij for i > j
  float high[kChunk];           // G, in two floats
  float low[kChunk];
  float beta[kChunk];
};

// The running sum of the log decays, in double as on the CPU, by the first warp: two tokens a lane.
__device__ void sum_decays(const DeltaTask& task, const Chunk& chunk, int h, const Pass& pass,
                           PrepareShared& shared) {
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

__device__ void load_depth(const DeltaTask& task, const Chunk& chunk, int h, int depth,
                           PrepareShared& shared) {
  const int i = static_cast<int>(threadIdx.x) % kDepth;
  for (int t = static_cast<int>(threadIdx.x) / kDepth; t < kChunk; t += kThreads / kDepth) {
    const bool inside = t < chunk.count && depth + i < task.dk;
    shared.keys[i][t] = inside ? key_row(task, chunk.row + t, h)[depth + i] : 0.0f;
    shared.queries[i][t] = inside ? query_row(task, chunk.row + t, h)[depth + i] : 0.0f;
  }
}

__device__ __forceinline__ void outer4(float (&sum)[4][4], const float4& a, const float4& b) {
  const float rows[4] = {a.x, a.y, a.z, a.w}, cols[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(rows[i], cols[j], sum[i][j]);
  }
}

// k·kᵀ and q·kᵀ by tiles of 4 × 4 a thread, times D: the first to shared memory, the second to W.
__device__ void decay_matrices(const DeltaTask& task, const Chunk& chunk, int h, float* weights,
                               PrepareShared& shared) {
  const int i0 = static_cast<int>(threadIdx.x) / 16 * 4,
            j0 = static_cast<int>(threadIdx.x) % 16 * 4;
  float kk[4][4] = {}, qk[4][4] = {};
  for (int depth = 0; depth < task.dk; depth += kDepth) {
    __syncthreads();
    load_depth(task, chunk, h, depth, shared);
    __syncthreads();
#pragma unroll 8
    for (int d = 0; d < kDepth; ++d) {
      const float4 k = *reinterpret_cast<const float4*>(&shared.keys[d][j0]);
      outer4(kk, *reinterpret_cast<const float4*>(&shared.keys[d][i0]), k);
      outer4(qk, *reinterpret_cast<const float4*>(&shared.queries[d][i0]), k);
    }
  }
  for (int a = 0; a < 4; ++a) {
    const int i = i0 + a;
    float w[4];
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
__device__ void solve_column(const DeltaTask& task, const Chunk& chunk, int h, int column,
                             const Pass& pass, const PrepareShared& shared) {
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
__global__ void __launch_bounds__(kThreads) delta_prepare_kernel(DeltaTask task, Pass pass) {
  __shared__ __align__(16) PrepareShared shared;
  const auto h = static_cast<int>(blockIdx.y);
  const Chunk chunk =
      chunk_of(task, pass, static_cast<int>(blockIdx.z), static_cast<int>(blockIdx.x), h);
  if (chunk.count <= 0) return;
  if (threadIdx.x < kWarp) sum_decays(task, chunk, h, pass, shared);
  decay_matrices(task, chunk, h, pass.weights + chunk.slot * kChunk * kChunk, shared);
  __syncthreads();
  for (int column = static_cast<int>(threadIdx.x); column < task.dv + task.dk; column += kThreads) {
    solve_column(task, chunk, h, column, pass, shared);
  }
}

// ── sweep ───────────────────────────────────────────────────────────────────────────────────────

struct SweepShared {
  float state[kMaxDim][kSlice];
  float keys[kChunk][kKeyPad];     // K', then exp(G_last − G)·k
  float queries[kChunk][kKeyPad];  // q, then W
  float values[kChunk][kSlice];    // V'
  float from_start[kChunk];        // exp(G)
  float to_end[kChunk];            // exp(G_last − G)
};

constexpr int kRowsPerThread = 4;
constexpr int kColsPerThread = 2;

// K' and q of a chunk; rows past its end and columns past dk are 0.
__device__ void load_readers(const DeltaTask& task, const Chunk& chunk, int h, const Pass& pass,
                             SweepShared& shared) {
  const float* keys = pass.keys + chunk.slot * kChunk * task.dk;
  const float* decays = pass.decays + chunk.slot * 2 * kChunk;
  if (threadIdx.x < kChunk) {
    shared.from_start[threadIdx.x] = decays[threadIdx.x];
    shared.to_end[threadIdx.x] = decays[kChunk + threadIdx.x];
  }
  const int i = static_cast<int>(threadIdx.x) % kMaxDim;
#pragma unroll 8
  for (int t = static_cast<int>(threadIdx.x) / kMaxDim; t < kChunk; t += kThreads / kMaxDim) {
    const bool inside = i < task.dk;
    shared.keys[t][i] = inside ? keys[t * task.dk + i] : 0.0f;
    shared.queries[t][i] = inside && t < chunk.count ? query_row(task, chunk.row + t, h)[i] : 0.0f;
  }
}

// exp(G_last − G)·k and W, in the places of K' and q.
__device__ void load_writers(const DeltaTask& task, const Chunk& chunk, int h, const Pass& pass,
                             SweepShared& shared) {
  const float* weights = pass.weights + chunk.slot * kChunk * kChunk;
  const int i = static_cast<int>(threadIdx.x) % kMaxDim;
#pragma unroll 8
  for (int t = static_cast<int>(threadIdx.x) / kMaxDim; t < kChunk; t += kThreads / kMaxDim) {
    const bool inside = i < task.dk && t < chunk.count;
    shared.keys[t][i] = inside ? shared.to_end[t] * key_row(task, chunk.row + t, h)[i] : 0.0f;
  }
#pragma unroll 4
  for (int at = static_cast<int>(threadIdx.x); at < kChunk * kChunk; at += kThreads) {
    shared.queries[at / kChunk][at % kChunk] = weights[at];
  }
}

__device__ __forceinline__ float part(const float4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// sum[r][c] += Σ_k rows[r0 + r][k] · columns[k][c0 + c], k in fours below `depth`.
__device__ __forceinline__ void multiply(float (&sum)[kRowsPerThread][kColsPerThread],
                                         const float (*rows)[kKeyPad], int r0,
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

// V' to shared memory; returns diag(exp G)·(q·S) in `o`.
__device__ void read_state(const DeltaTask& task, const Chunk& chunk, int h, int r0, int c0,
                           int column, float (&o)[kRowsPerThread][kColsPerThread],
                           SweepShared& shared) {
  float p[kRowsPerThread][kColsPerThread] = {};
  const int depth = (task.dk + 3) / 4 * 4;
  multiply(p, shared.keys, r0, shared.state, c0, depth);
  multiply(o, shared.queries, r0, shared.state, c0, depth);
#pragma unroll
  for (int r = 0; r < kRowsPerThread; ++r) {
#pragma unroll
    for (int c = 0; c < kColsPerThread; ++c) {
      const bool inside = r0 + r < chunk.count && column + c < task.dv;
      const float u = inside ? value_row(task, chunk.row + r0 + r, h)[column + c] : 0.0f;
      shared.values[r0 + r][c0 + c] = inside ? u - p[r][c] : 0.0f;
      o[r][c] *= shared.from_start[r0 + r];
    }
  }
}

// S ← exp(G_last)·S + (…k)ᵀ·V': eight rows by two columns a thread.
__device__ void write_state(const DeltaTask& task, int i0, int c0, SweepShared& shared) {
  constexpr int kRows = kMaxDim / 16;
  float sum[kRows][2];
  const float e = shared.from_start[kChunk - 1];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    sum[i][0] = e * shared.state[i0 + i][c0];
    sum[i][1] = e * shared.state[i0 + i][c0 + 1];
  }
#pragma unroll 4
  for (int t = 0; t < kChunk; ++t) {
    const float4 k0 = *reinterpret_cast<const float4*>(&shared.keys[t][i0]);
    const float4 k1 = *reinterpret_cast<const float4*>(&shared.keys[t][i0 + 4]);
    const float2 v = *reinterpret_cast<const float2*>(&shared.values[t][c0]);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float k = i < 4 ? part(k0, i) : part(k1, i - 4);
      sum[i][0] = fmaf(k, v.x, sum[i][0]);
      sum[i][1] = fmaf(k, v.y, sum[i][1]);
    }
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    shared.state[i0 + i][c0] = sum[i][0];
    shared.state[i0 + i][c0 + 1] = sum[i][1];
  }
}

__device__ void sweep_chunk(const DeltaTask& task, const Chunk& chunk, int h, const Pass& pass,
                            SweepShared& shared) {
  const int row_group = static_cast<int>(threadIdx.x) / 16;
  const int r0 = row_group * kRowsPerThread;
  const int c0 = static_cast<int>(threadIdx.x) % 16 * kColsPerThread;
  const int column = static_cast<int>(blockIdx.x) * kSlice + c0;
  load_readers(task, chunk, h, pass, shared);
  __syncthreads();
  float o[kRowsPerThread][kColsPerThread] = {};
  read_state(task, chunk, h, r0, c0, column, o, shared);
  __syncthreads();
  load_writers(task, chunk, h, pass, shared);
  __syncthreads();
  multiply(o, shared.queries, r0, shared.values, c0, kChunk);
  for (int r = 0; r < kRowsPerThread && r0 + r < chunk.count; ++r) {
    float* out = task.out + ((chunk.row + r0 + r) * task.value_heads + h) * task.dv;
    for (int c = 0; c < kColsPerThread; ++c) {
      if (column + c < task.dv) out[column + c] = o[r][c];
    }
  }
  write_state(task, row_group * (kMaxDim / 16), c0, shared);
  __syncthreads();
}

// Block (x, y, z): slice x of value head y in sequence z of the pass.
__global__ void __launch_bounds__(kThreads) delta_sweep_kernel(DeltaTask task, Pass pass) {
  extern __shared__ float4 sweep_shared[];
  SweepShared& shared = *reinterpret_cast<SweepShared*>(sweep_shared);
  const auto h = static_cast<int>(blockIdx.y);
  const int first_column = static_cast<int>(blockIdx.x) * kSlice;
  const SequenceRows rows = task.sequences[pass.first_sequence + blockIdx.z];
  if (rows.num_tokens <= pass.first_chunk * kChunk) return;
  float* state = rows.state + task.delta_offset + static_cast<int64_t>(h) * task.dk * task.dv;
  const int c = static_cast<int>(threadIdx.x) % kSlice;
  const bool has_column = first_column + c < task.dv;
  for (int i = static_cast<int>(threadIdx.x) / kSlice; i < kMaxDim; i += kThreads / kSlice) {
    const bool inside = has_column && i < task.dk;
    shared.state[i][c] = inside ? state[i * task.dv + first_column + c] : 0.0f;
  }
  for (int n = 0; n < pass.num_chunks; ++n) {
    const Chunk chunk = chunk_of(task, pass, static_cast<int>(blockIdx.z), n, h);
    if (chunk.count <= 0) break;
    sweep_chunk(task, chunk, h, pass, shared);
  }
  for (int i = static_cast<int>(threadIdx.x) / kSlice; i < task.dk; i += kThreads / kSlice) {
    if (has_column) state[i * task.dv + first_column + c] = shared.state[i][c];
  }
}

int64_t slot_floats(int64_t dk) {
  return kChunk * dk + kChunk * kChunk + 2 * kChunk;
}

// How many chunks of all heads fit the scratch; one does in any case.
int64_t slots_of(int64_t dk, int64_t value_heads) {
  const int64_t bytes = slot_floats(dk) * value_heads * static_cast<int64_t>(sizeof(float));
  return std::max<int64_t>(kScratchBytes / bytes, 1);
}

void run_pass(Queue& queue, const DeltaTask& task, const Pass& pass, int num_sequences) {
  const auto heads = static_cast<unsigned>(task.value_heads);
  const auto sequences = static_cast<unsigned>(num_sequences);
  HS_LAUNCH(queue, (Grid{.x = static_cast<unsigned>(pass.num_chunks), .y = heads, .z = sequences}),
            Grid{.x = kThreads}, 0, delta_prepare_kernel, task, pass);
  HS_LAUNCH(queue, (Grid{.x = blocks_for(task.dv, kSlice), .y = heads, .z = sequences}),
            Grid{.x = kThreads}, static_cast<int64_t>(sizeof(SweepShared)), delta_sweep_kernel,
            task, pass);
}

}  // namespace

int64_t delta_mixer_scratch_bytes(const DeltaNetShape& shape, int64_t max_tokens) {
  if (max_tokens <= kMaxStepTokens || shape.key_head_dim > kMaxDim) return 0;
  const int64_t slots = slots_of(shape.key_head_dim, shape.num_value_heads);
  return slots * shape.num_value_heads * slot_floats(shape.key_head_dim) *
             static_cast<int64_t>(sizeof(float)) +
         3 * 256;
}

// Passes are as many chunks of as many sequences as the scratch holds, chunks first.
void delta_chunks(Queue& queue, const DeltaTask& task, const StepBatch& batch) {
  const ScratchScope scope(queue);
  const int64_t all_chunks = blocks_for(batch.max_tokens, kChunk);
  const int64_t slots =
      std::min(slots_of(task.dk, task.value_heads), all_chunks * batch.num_sequences);
  const int64_t num_chunks = std::min(slots, all_chunks);
  const int64_t num_sequences = std::max<int64_t>(slots / num_chunks, 1);
  const int64_t parts = slots * task.value_heads;
  Pass pass{};
  pass.keys = queue.take<float>(parts * kChunk * task.dk);
  pass.weights = queue.take<float>(parts * kChunk * kChunk);
  pass.decays = queue.take<float>(parts * 2 * kChunk);
  pass.num_chunks = static_cast<int>(num_chunks);
  if (!queue.status) return;
  for (int64_t s = 0; s < batch.num_sequences; s += num_sequences) {
    pass.first_sequence = static_cast<int>(s);
    const int64_t here = std::min(num_sequences, batch.num_sequences - s);
    for (int64_t first = 0; first < all_chunks; first += num_chunks) {
      pass.first_chunk = static_cast<int>(first);
      run_pass(queue, task, pass, static_cast<int>(here));
    }
  }
}

}  // namespace hotset::cuda
