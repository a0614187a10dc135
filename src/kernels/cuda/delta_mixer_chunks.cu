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
#include "kernels/cuda/mma.cuh"

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

// `rows` rows of `width` floats to a tile; the others become 0.
__device__ __forceinline__ void ask_for_rows(float (*to)[kKeyPad], const float* from,
                                             int64_t stride, int width, int rows) {
  const int vectors = width / 4;
  for (int at = static_cast<int>(threadIdx.x); at < kChunk * vectors; at += kThreads) {
    const int t = at / vectors, i = at % vectors * 4;
    const bool inside = t < rows;
    copy_async(shared_address(&to[t][i]), from + (inside ? t * stride + i : 0), inside);
  }
}

// K' and the decays of a chunk; nothing when there is no such chunk.
__device__ __forceinline__ void ask_for_keys(const DeltaTask& task, const Pass& pass,
                                             const Chunk& chunk, float (&decays)[2 * kChunk],
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

__device__ __forceinline__ void ask_for_queries(const DeltaTask& task, const Chunk& chunk, int h,
                                                SweepShared& shared) {
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
__device__ __forceinline__ void load_u(const DeltaTask& task, const Chunk& chunk, int h,
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

__device__ __forceinline__ void write_out(const DeltaTask& task, const Chunk& chunk, int h,
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
__device__ void sweep_chunk(const DeltaTask& task, const Pass& pass, const Chunk& chunk,
                            const Chunk& next, int h, int parity, const Part& at,
                            SweepShared& shared) {
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
__global__ void __launch_bounds__(kThreads) delta_sweep_kernel(DeltaTask task, Pass pass) {
  extern __shared__ float4 sweep_shared[];
  SweepShared& shared = *reinterpret_cast<SweepShared*>(sweep_shared);
  const auto h = static_cast<int>(blockIdx.y), sequence = static_cast<int>(blockIdx.z);
  const int first_column = static_cast<int>(blockIdx.x) * kSlice;
  const SequenceRows rows = task.sequences[pass.first_sequence + sequence];
  if (rows.num_tokens <= pass.first_chunk * kChunk) return;
  const int c0 = static_cast<int>(threadIdx.x) % 16 * kColsPerThread;
  const Part at{static_cast<int>(threadIdx.x) / 16 * kRowsPerThread, c0, first_column + c0};
  const auto chunk_at = [&](int n) {
    Chunk chunk = chunk_of(task, pass, sequence, n, h);
    if (n >= pass.num_chunks) chunk.count = 0;
    return chunk;
  };
  Chunk chunk = chunk_at(0);
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
    const Chunk next = chunk_at(n + 1);
    sweep_chunk(task, pass, chunk, next, h, n % 2, at, shared);
    chunk = next;
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
