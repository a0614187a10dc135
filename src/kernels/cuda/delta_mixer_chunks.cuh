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
#pragma once

#include "kernels/cuda/delta_mixer_parts.cuh"

namespace hotset::cuda {

inline constexpr int kDeltaChunk = 64;
inline constexpr int kDeltaThreads = 256;

// The chunks of a pass: sequences first_sequence …, of each the chunks first_chunk ….
struct DeltaPass {
  int first_sequence;
  int first_chunk;
  int num_chunks;
  float* keys;     // K' [slot][64][dk]
  float* weights;  // W [slot][64][64]
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
  return task.mixed + row * task.channels + h / task.ratio * task.dk;
}
__device__ __forceinline__ const float* key_row(const DeltaTask& task, int64_t row, int h) {
  return query_row(task, row, h) + task.key_heads * task.dk;
}
__device__ __forceinline__ float* value_row(const DeltaTask& task, int64_t row, int h) {
  return task.mixed + row * task.channels + 2 * task.key_heads * task.dk + h * task.dv;
}

// Launchers of a pass over `num_sequences` sequences.
void delta_prepare(Queue& queue, const DeltaTask& task, const DeltaPass& pass, int num_sequences);
void delta_sweep(Queue& queue, const DeltaTask& task, const DeltaPass& pass, int num_sequences);

}  // namespace hotset::cuda
