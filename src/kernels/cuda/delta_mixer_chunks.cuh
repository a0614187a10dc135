// SPDX-License-Identifier: Apache-2.0
// The delta rule over chunks of 64 tokens (formulas in kernels/delta_rule.h), for heads of 128 ×
// 128 by tensor cores. What does not depend on the state is computed for all chunks at once; with
// L = (I − A)⁻¹:
//
//   prepare   U = L·diag(β)·v,  K' = L·diag(β·exp G)·k,  W = lower((q·kᵀ) ∘ D)     per chunk, head
//   sweep     V' = U − K'·S;   O = diag(exp G)·(q·S) + W·V';   S ← exp(G_last)·S + (…k)ᵀ·V'
//             chunk after chunk, per head and slice of 32 of S's columns, which stay in registers
//
// U replaces v in `mixed`; K', W and the decays of a pass of chunks live in scratch.
//
// A matrix that goes into a product is two planes of bf16, high and low, which together keep 16
// bits or more; a product is high·high + high·low + low·high with fp32 sums. In memory a row is its
// high values, then its low ones, in the bytes of as many floats: q and k lie so in `mixed` once
// they are normalised.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/delta_mixer_parts.cuh"
#include "kernels/cuda/mma.cuh"

namespace hotset::cuda {

inline constexpr int kDeltaChunk = 64;
inline constexpr int kDeltaThreads = 256;

// The chunks of a pass: sequences first_sequence …, of each the chunks first_chunk ….
struct DeltaPass {
  int first_sequence;
  int first_chunk;
  int num_chunks;
  float* keys;     // K' [slot][64][128], rows of two planes
  float* weights;  // W [slot][64][64], the same
  float* decays;   // [slot][exp(G) 64, exp(G_last − G) 64]
};

struct DeltaChunk {
  int64_t row;   // its first row
  int count;     // tokens, at most 64; ≤ 0: there is no such chunk
  int64_t slot;  // in the scratch of the pass
};

__device__ __forceinline__ DeltaChunk chunk_of(const DeltaTask& task, const DeltaPass& pass,
                                               int sequence, int chunk, int h) {
  const SequenceRows rows = task.sequences[pass.first_sequence + sequence];
  const int first = (pass.first_chunk + chunk) * kDeltaChunk;
  return {rows.token_begin + first, min(kDeltaChunk, rows.num_tokens - first),
          (static_cast<int64_t>(sequence) * pass.num_chunks + chunk) * task.value_heads + h};
}

__device__ __forceinline__ const float* query_row(const DeltaTask& task, int64_t row, int h) {
  return task.mixed + row * task.channels + h / task.ratio * kDeltaDim;
}
__device__ __forceinline__ const float* key_row(const DeltaTask& task, int64_t row, int h) {
  return query_row(task, row, h) + task.key_heads * kDeltaDim;
}
__device__ __forceinline__ float* value_row(const DeltaTask& task, int64_t row, int h) {
  return task.mixed + row * task.channels + 2 * task.key_heads * kDeltaDim + h * kDeltaDim;
}

using DeltaHalves = Halves<__nv_bfloat16>;

__device__ __forceinline__ DeltaHalves delta_split(float a, float b) {
  return split_pair<__nv_bfloat16>(a, b);
}

// A matrix in shared memory: two planes of kRows rows of kChunks · 16 bytes. Chunks lie permuted,
// so that eight rows of a column hit all banks. Planes begin at multiples of a row: a step along a
// row is an exclusive or with a constant, one along a column an addition.
template <int kRows, int kChunks>
struct Planes {
  static constexpr int kPlaneBytes = kRows * kChunks * 16;
  static constexpr int kBytes = 2 * kPlaneBytes;

  __device__ __forceinline__ static int turn_of(int row) {
    return kChunks >= 8 ? row & 7 : row / 2 & 3;
  }
  __device__ __forceinline__ static uint32_t offset(int row, int chunk) {
    return static_cast<uint32_t>((row * kChunks + (chunk ^ turn_of(row))) * 16);
  }
  // Two neighbouring values, from an even column.
  __device__ __forceinline__ static void put(std::byte* planes, int row, int column, float a,
                                             float b) {
    const DeltaHalves halves = delta_split(a, b);
    std::byte* to = planes + offset(row, column / 8) + column % 8 * 2;
    *reinterpret_cast<uint32_t*>(to) = halves.high;
    *reinterpret_cast<uint32_t*>(to + kPlaneBytes) = halves.low;
  }
  // Asks for rows of two planes, `stride` floats apart; those from `count` on become 0.
  __device__ __forceinline__ static void ask_for(std::byte* planes, const float* from,
                                                 int64_t stride, int count) {
    const uint32_t to = shared_address(planes);
#pragma unroll 4
    for (int at = static_cast<int>(threadIdx.x); at < kRows * 2 * kChunks; at += kDeltaThreads) {
      const int t = at / (2 * kChunks), c = at % (2 * kChunks);
      const bool inside = t < count;
      copy_async(to + c / kChunks * kPlaneBytes + offset(t, c % kChunks),
                 from + (inside ? t * stride + 4 * c : 0), inside);
    }
  }

  struct Fragment {
    uint32_t high[4];
    uint32_t low[4];
  };
  // The left side of a product: rows row0 … + 15, columns 16k ….
  __device__ __forceinline__ static void load_left(Fragment& f, uint32_t planes, int row0, int k) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const uint32_t at = (planes + offset(row0 + lane % 16, lane / 16)) ^ (32u * k);
    load_matrices(f.high, at);
    load_matrices(f.low, at + kPlaneBytes);
  }
  // The same of the transposed matrix: its columns column0 … + 15, rows 16k ….
  __device__ __forceinline__ static void load_left_transposed(Fragment& f, uint32_t planes,
                                                              int column0, int k) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const uint32_t at = planes + offset(lane / 16 * 8 + lane % 8, column0 / 8 + lane / 8 % 2) +
                        16u * k * kChunks * 16;
    load_transposed(f.high, at);
    load_transposed(f.low, at + kPlaneBytes);
  }
  // The right side: rows 16k …, columns column0 … + 15 in two halves of a fragment.
  __device__ __forceinline__ static void load_right(Fragment& f, uint32_t planes, int column0,
                                                    int k) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const uint32_t at =
        ((planes + offset(lane % 16, lane / 16)) ^ (2u * column0)) + 16u * k * kChunks * 16;
    load_transposed(f.high, at);
    load_transposed(f.low, at + kPlaneBytes);
  }
  // The same of the transposed matrix: its rows row0 … + 15 are the columns.
  __device__ __forceinline__ static void load_right_transposed(Fragment& f, uint32_t planes,
                                                               int row0, int k) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const uint32_t at =
        (planes + offset(row0 + lane / 16 * 8 + lane % 8, lane / 8 % 2)) ^ (32u * k);
    load_matrices(f.high, at);
    load_matrices(f.low, at + kPlaneBytes);
  }
};

// sums += left · right, 16 × 16. The three parts of all sums in turn: no sum waits for itself.
template <typename Left, typename Right>
__device__ __forceinline__ void multiply_planes(float (*sums)[4], const Left& left,
                                                const Right& right) {
  multiply_add<__nv_bfloat16>(sums[0], left.high, right.high[0], right.high[1]);
  multiply_add<__nv_bfloat16>(sums[1], left.high, right.high[2], right.high[3]);
  multiply_add<__nv_bfloat16>(sums[0], left.high, right.low[0], right.low[1]);
  multiply_add<__nv_bfloat16>(sums[1], left.high, right.low[2], right.low[3]);
  multiply_add<__nv_bfloat16>(sums[0], left.low, right.high[0], right.high[1]);
  multiply_add<__nv_bfloat16>(sums[1], left.low, right.high[2], right.high[3]);
}

using HeadPlanes = Planes<kDeltaChunk, kDeltaDim / 8>;      // q, k, K', v of a chunk
using SquarePlanes = Planes<kDeltaChunk, kDeltaChunk / 8>;  // W, L

// Launchers of a pass over `num_sequences` sequences.
void delta_prepare(Queue& queue, const DeltaTask& task, const DeltaPass& pass, int num_sequences);
void delta_sweep(Queue& queue, const DeltaTask& task, const DeltaPass& pass, int num_sequences);

}  // namespace hotset::cuda
