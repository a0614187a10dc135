// SPDX-License-Identifier: Apache-2.0
// The part of the chunked delta rule that goes from chunk to chunk with the state
// (delta_mixer_chunks.cuh has the formulas). Of the block's slice of S a warp keeps 16 rows, as the
// sums of its products; for K'·S and q·S it goes through shared memory, in two planes.
//
// Where shared memory suffices, K' and q of the next chunk are on their way during a whole chunk, k
// and W during half of one. Elsewhere K' and k share one place, q and W another, and each is filled
// while the other is in use.
#include "kernels/cuda/delta_mixer_chunks.cuh"

namespace hotset::cuda {
namespace {

constexpr int kChunk = kDeltaChunk;
constexpr int kThreads = kDeltaThreads;
constexpr int kSlice = 32;  // columns of S

using StatePlanes = Planes<kDeltaDim, kSlice / 8>;
using ValuePlanes = Planes<kChunk, kSlice / 8>;

struct SweepCore {
  std::byte state[StatePlanes::kBytes];
  std::byte values[ValuePlanes::kBytes];  // V'
  std::byte ended[ValuePlanes::kBytes];   // diag(exp(G_last − G))·V'
  float decays[2][2 * kChunk];            // of this chunk and the next: exp(G), exp(G_last − G)
};
struct LargeShared {
  SweepCore core;
  struct {
    std::byte projections[HeadPlanes::kBytes];  // K'
    std::byte queries[HeadPlanes::kBytes];
  } now[2];  // of this chunk and the next
  std::byte keys[HeadPlanes::kBytes];
  std::byte weights[SquarePlanes::kBytes];
};
struct SmallShared {
  SweepCore core;
  std::byte a[HeadPlanes::kBytes];  // K', then k
  std::byte b[HeadPlanes::kBytes];  // q, then W
};

using Tile = float[2][4];  // 16 × 16 of a warp

// The block's work, and a warp's part of [64 × 32]: 16 rows and 16 columns.
struct Sweep {
  const DeltaTask& task;
  const DeltaPass& pass;
  int h;
  int first_column;
  int r0;
  int c0;

  __device__ __forceinline__ void ask_for_projections(const DeltaChunk& chunk, std::byte* to,
                                                      float* decays) const {
    if (chunk.count <= 0) return;
    HeadPlanes::ask_for(to, pass.keys + chunk.slot * kChunk * kDeltaDim, kDeltaDim, kChunk);
    if (threadIdx.x < 2 * kChunk / 4) {
      const auto i = static_cast<int>(threadIdx.x) * 4;
      copy_async(shared_address(decays + i), pass.decays + chunk.slot * 2 * kChunk + i, true);
    }
  }
  __device__ __forceinline__ void ask_for_queries(const DeltaChunk& chunk, std::byte* to) const {
    if (chunk.count <= 0) return;
    HeadPlanes::ask_for(to, query_row(task, chunk.row, h), task.channels, chunk.count);
  }
  __device__ __forceinline__ void ask_for_keys(const DeltaChunk& chunk, std::byte* to) const {
    if (chunk.count <= 0) return;
    HeadPlanes::ask_for(to, key_row(task, chunk.row, h), task.channels, chunk.count);
  }
  __device__ __forceinline__ void ask_for_weights(const DeltaChunk& chunk, std::byte* to) const {
    if (chunk.count <= 0) return;
    SquarePlanes::ask_for(to, pass.weights + chunk.slot * kChunk * kChunk, kChunk, kChunk);
  }

  // Calls visit(row, column in the slice, index of the pair's tile, of its first value in that).
  template <typename Visit>
  __device__ __forceinline__ void for_pairs(const Visit& visit) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        visit(r0 + lane / 4 + 8 * half, c0 + 8 * n + lane % 4 * 2, n, 2 * half);
      }
    }
  }
};

// sums[m] += rows[m] · S.
template <int kCount>
__device__ __forceinline__ void times_state(const Sweep& sweep,
                                            const std::byte* const (&rows)[kCount],
                                            const SweepCore& core, Tile (&sums)[kCount]) {
  const uint32_t state = shared_address(core.state);
#pragma unroll 4
  for (int k = 0; k < kDeltaDim / 16; ++k) {
    StatePlanes::Fragment right;
    StatePlanes::load_right(right, state, sweep.c0, k);
#pragma unroll
    for (int m = 0; m < kCount; ++m) {
      HeadPlanes::Fragment left;
      HeadPlanes::load_left(left, shared_address(rows[m]), sweep.r0, k);
      multiply_planes(sums[m], left, right);
    }
  }
}

// U of the warp's part; 0 outside of the chunk.
__device__ __forceinline__ void load_u(const Sweep& sweep, const DeltaChunk& chunk, Tile& u) {
  sweep.for_pairs([&](int t, int c, int n, int i) {
    float2 pair = {};
    if (t < chunk.count) {
      pair = *reinterpret_cast<const float2*>(value_row(sweep.task, chunk.row + t, sweep.h) +
                                              sweep.first_column + c);
    }
    u[n][i] = pair.x;
    u[n][i + 1] = pair.y;
  });
}

// V' = U − p to shared memory, also scaled for the state.
__device__ __forceinline__ void put_values(const Sweep& sweep, const DeltaChunk& chunk,
                                           const Tile& u, const Tile& p, const float* decays,
                                           SweepCore& core) {
  sweep.for_pairs([&](int t, int c, int n, int i) {
    const bool inside = t < chunk.count;
    const float a = inside ? u[n][i] - p[n][i] : 0.0f;
    const float b = inside ? u[n][i + 1] - p[n][i + 1] : 0.0f;
    const float to_end = decays[kChunk + t];
    ValuePlanes::put(core.values, t, c, a, b);
    ValuePlanes::put(core.ended, t, c, to_end * a, to_end * b);
  });
}

__device__ __forceinline__ void scale_rows(const Sweep& sweep, const float* decays, Tile& o) {
  sweep.for_pairs([&](int t, int, int n, int i) {
    o[n][i] *= decays[t];
    o[n][i + 1] *= decays[t];
  });
}

// o += W·V', whose tiles right of the diagonal are 0.
__device__ __forceinline__ void add_values(const Sweep& sweep, const std::byte* weights,
                                           const SweepCore& core, Tile& o) {
  const uint32_t left_at = shared_address(weights), right_at = shared_address(core.values);
#pragma unroll
  for (int k = 0; k < kChunk / 16; ++k) {
    if (16 * k > sweep.r0) break;
    SquarePlanes::Fragment left;
    ValuePlanes::Fragment right;
    SquarePlanes::load_left(left, left_at, sweep.r0, k);
    ValuePlanes::load_right(right, right_at, sweep.c0, k);
    multiply_planes(o, left, right);
  }
}

__device__ __forceinline__ void write_out(const Sweep& sweep, const DeltaChunk& chunk,
                                          const Tile& o) {
  sweep.for_pairs([&](int t, int c, int n, int i) {
    if (t >= chunk.count) return;
    float* out = sweep.task.out + ((chunk.row + t) * sweep.task.value_heads + sweep.h) * kDeltaDim;
    *reinterpret_cast<float2*>(out + sweep.first_column + c) = make_float2(o[n][i], o[n][i + 1]);
  });
}

// A warp's 16 rows of the slice.
struct State {
  float sums[kSlice / 8][4];

  // Calls visit(row, column in the slice, first value of the pair).
  template <typename Visit>
  __device__ __forceinline__ void for_pairs(const Visit& visit) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int row = static_cast<int>(threadIdx.x) / kWarp * 16 + lane / 4;
#pragma unroll
    for (int n = 0; n < kSlice / 8; ++n) {
      visit(row, 8 * n + lane % 4 * 2, sums[n]);
      visit(row + 8, 8 * n + lane % 4 * 2, sums[n] + 2);
    }
  }
  __device__ __forceinline__ void put(SweepCore& core) {
    for_pairs(
        [&](int i, int c, const float* s) { StatePlanes::put(core.state, i, c, s[0], s[1]); });
  }
  // S ← exp(G_last)·S + kᵀ·(diag(exp(G_last − G))·V').
  __device__ __forceinline__ void move_on(const std::byte* keys, const float* decays,
                                          const SweepCore& core) {
    const uint32_t left_at = shared_address(keys), right_at = shared_address(core.ended);
    const int row0 = static_cast<int>(threadIdx.x) / kWarp * 16;
    const float e = decays[kChunk - 1];
#pragma unroll
    for (auto& four : sums) {
#pragma unroll
      for (float& s : four) s *= e;
    }
#pragma unroll
    for (int k = 0; k < kChunk / 16; ++k) {
      HeadPlanes::Fragment left;
      HeadPlanes::load_left_transposed(left, left_at, row0, k);
#pragma unroll
      for (int n = 0; n < kSlice / 16; ++n) {
        ValuePlanes::Fragment right;
        ValuePlanes::load_right(right, right_at, 16 * n, k);
        multiply_planes(sums + 2 * n, left, right);
      }
    }
  }
};

// Behind each barrier what was asked for before it is there, and what was used before it is free.
__device__ __forceinline__ void meet() {
  wait_async<0>();
  __syncthreads();
}

__device__ __forceinline__ void start(const Sweep& sweep, const DeltaChunk& chunk,
                                      LargeShared& shared) {
  sweep.ask_for_projections(chunk, shared.now[0].projections, shared.core.decays[0]);
  sweep.ask_for_queries(chunk, shared.now[0].queries);
  sweep.ask_for_keys(chunk, shared.keys);
  sweep.ask_for_weights(chunk, shared.weights);
}

__device__ __forceinline__ void sweep_chunk(const Sweep& sweep, const DeltaChunk& chunk,
                                            const DeltaChunk& next, int parity, State& state,
                                            LargeShared& shared) {
  SweepCore& core = shared.core;
  const float* decays = core.decays[parity];
  auto& later = shared.now[1 - parity];
  Tile u, sums[2] = {};
  load_u(sweep, chunk, u);
  sweep.ask_for_projections(next, later.projections, core.decays[1 - parity]);
  sweep.ask_for_queries(next, later.queries);
  commit_async();
  const std::byte* const rows[2] = {shared.now[parity].projections, shared.now[parity].queries};
  times_state(sweep, rows, core, sums);
  put_values(sweep, chunk, u, sums[0], decays, core);
  wait_async<1>();
  __syncthreads();
  state.move_on(shared.keys, decays, core);
  state.put(core);
  scale_rows(sweep, decays, sums[1]);
  add_values(sweep, shared.weights, core, sums[1]);
  write_out(sweep, chunk, sums[1]);
  meet();
  sweep.ask_for_keys(next, shared.keys);
  sweep.ask_for_weights(next, shared.weights);
  commit_async();
}

__device__ __forceinline__ void start(const Sweep& sweep, const DeltaChunk& chunk,
                                      SmallShared& shared) {
  sweep.ask_for_projections(chunk, shared.a, shared.core.decays[0]);
  commit_async();
}

__device__ __forceinline__ void sweep_chunk(const Sweep& sweep, const DeltaChunk& chunk,
                                            const DeltaChunk& next, int parity, State& state,
                                            SmallShared& shared) {
  SweepCore& core = shared.core;
  const float* decays = core.decays[parity];
  Tile u, p[1] = {}, o[1] = {};
  load_u(sweep, chunk, u);
  sweep.ask_for_queries(chunk, shared.b);
  commit_async();
  times_state(sweep, {shared.a}, core, p);
  meet();
  sweep.ask_for_keys(chunk, shared.a);
  commit_async();
  times_state(sweep, {shared.b}, core, o);
  put_values(sweep, chunk, u, p[0], decays, core);
  meet();
  sweep.ask_for_weights(chunk, shared.b);
  commit_async();
  state.move_on(shared.a, decays, core);
  state.put(core);
  meet();
  sweep.ask_for_projections(next, shared.a, core.decays[1 - parity]);
  commit_async();
  scale_rows(sweep, decays, o[0]);
  add_values(sweep, shared.b, core, o[0]);
  write_out(sweep, chunk, o[0]);
  meet();
}

// Block (x, y, z): slice x of value head y in sequence z of the pass.
template <typename Shared>
__global__ void __launch_bounds__(kThreads) delta_sweep_kernel(DeltaTask task, DeltaPass pass) {
  extern __shared__ __align__(1024) float4 sweep_shared[];
  Shared& shared = *reinterpret_cast<Shared*>(sweep_shared);
  const auto h = static_cast<int>(blockIdx.y), sequence = static_cast<int>(blockIdx.z);
  const int first_column = static_cast<int>(blockIdx.x) * kSlice;
  const SequenceRows rows = task.sequences[pass.first_sequence + sequence];
  if (rows.num_tokens <= pass.first_chunk * kChunk) return;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const Sweep sweep{task, pass, h, first_column, warp % 4 * 16, warp / 4 * 16};
  const auto chunk_at = [&](int n) {
    DeltaChunk chunk = chunk_of(task, pass, sequence, n, h);
    if (n >= pass.num_chunks) chunk.count = 0;
    return chunk;
  };
  DeltaChunk chunk = chunk_at(0);
  start(sweep, chunk, shared);

  float* memory = rows.state + task.delta_offset + static_cast<int64_t>(h) * kDeltaDim * kDeltaDim +
                  first_column;
  State state;
  state.for_pairs([&](int i, int c, float* s) {
    const float2 pair = *reinterpret_cast<const float2*>(memory + i * kDeltaDim + c);
    s[0] = pair.x;
    s[1] = pair.y;
  });
  state.put(shared.core);
  meet();
  for (int n = 0; chunk.count > 0; ++n) {
    const DeltaChunk next = chunk_at(n + 1);
    sweep_chunk(sweep, chunk, next, n % 2, state, shared);
    chunk = next;
  }
  state.for_pairs([&](int i, int c, const float* s) {
    *reinterpret_cast<float2*>(memory + i * kDeltaDim + c) = make_float2(s[0], s[1]);
  });
}

}  // namespace

void delta_sweep(Queue& queue, const DeltaTask& task, const DeltaPass& pass, int num_sequences) {
  const Grid grid{.x = kDeltaDim / kSlice,
                  .y = static_cast<unsigned>(task.value_heads),
                  .z = static_cast<unsigned>(num_sequences)};
  constexpr auto kLarge = static_cast<int64_t>(sizeof(LargeShared));
  constexpr auto kSmall = static_cast<int64_t>(sizeof(SmallShared));
  if (queue.runtime.info().max_shared_bytes >= kLarge) {
    HS_LAUNCH(queue, grid, Grid{.x = kThreads}, kLarge, delta_sweep_kernel<LargeShared>, task,
              pass);
  } else {
    HS_LAUNCH(queue, grid, Grid{.x = kThreads}, kSmall, delta_sweep_kernel<SmallShared>, task,
              pass);
  }
}

}  // namespace hotset::cuda
