// SPDX-License-Identifier: Apache-2.0
// What the kernels of gated attention share. Three steps:
//
//   attention_rows     q, k ← rope(rms_norm); k and v into their pages; q into `out`, in place of
//                      the result that replaces it
//   attention_tensor   scores and sums by tensor cores: 16-bit pages, head_dim 64, 128 or 256
//   attention_prefill  the same for many rows of a sequence; attention_tensor hands them on
//   attention_simple   any shape and KV type, fp32 arithmetic
//   attention_merge    partial results of the splits of a row's positions become one
//
// Positions are cut in a fixed number of splits, which depends on the shapes of the step and on the
// device only; how long each one is, a block finds out on the device. So a recorded step is right
// at every length up to max_positions. Sequences that decode together are cut as if each were
// alone, up to kMostAlone of them: what one gets does not depend on the others, to the bit.
#pragma once

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/warp.cuh"
#include "kernels/gated_attention.h"

namespace hotset::cuda {

struct AttentionTask {
  int heads;
  int kv_heads;
  int group;  // query heads of a KV head
  int dim;    // head_dim
  int rotary;
  int page_tokens;
  float eps;
  float scale;  // of scores
  KvType type;
  int value_bytes;  // of one K or V element
  int64_t layer_offset;
  int64_t plane_bytes;  // K or V of a page
  const float* q_norm;
  const float* k_norm;
  const float* cos_sin;
  const SequenceRows* sequences;
  const float* query_gate;
  const float* key;
  const float* value;
  float* out;
  // Of each row (token · heads + head) and split: the values' weighted sum, not yet divided, and
  // the largest score with the sum of weights against it. Scores are in powers of 2.
  float* sums;      // [row][split][dim]
  float2* weights;  // [row][split] (max, sum); sum 0: nothing seen, `sums` not written
  int splits;
};

inline constexpr int kMaxAttentionDim = 512;
inline constexpr int kPrefillRows = 128;  // (token, head) rows of a block of attention_prefill
inline constexpr int64_t kMostAlone = 16;

// Tokens and sequences that the number of splits is chosen for.
struct SplitShape {
  int64_t tokens;
  int64_t sequences;
};
[[nodiscard]] inline SplitShape split_shape(const StepBatch& batch) {
  if (batch.max_tokens == 1 && batch.num_sequences <= kMostAlone) return {1, 1};
  return {batch.num_tokens, batch.num_sequences};
}

// The row of K of one position and KV head; V lies plane_bytes behind it.
__device__ __forceinline__ std::byte* key_address(const AttentionTask& task,
                                                  const SequenceRows& rows, int64_t position,
                                                  int kv_head) {
  const auto at = static_cast<unsigned>(position),
             in_page = static_cast<unsigned>(task.page_tokens);
  const int64_t row = static_cast<int64_t>(kv_head) * task.page_tokens + at % in_page;
  return rows.pages[at / in_page] + task.layer_offset + row * task.dim * task.value_bytes;
}

// σ(gate) of element `column` of a row.
__device__ __forceinline__ float gate_of(const AttentionTask& task, int64_t row, int column) {
  return sigmoid(task.query_gate[(row * 2 + 1) * task.dim + column]);
}

// Which positions a split of `splits` has when the rows see `visible` positions: whole tiles.
struct Split {
  int64_t begin;
  int64_t end;
};
__device__ __forceinline__ Split split_of(int64_t visible, int tile, int split, int splits) {
  const int tiles = (static_cast<int>(visible) + tile - 1) / tile;
  const int each = (tiles + splits - 1) / splits;
  const int64_t begin = static_cast<int64_t>(min(split * each, tiles)) * tile,
                end = static_cast<int64_t>(min((split + 1) * each, tiles)) * tile;
  return {begin, min(end, visible)};
}

// Launchers. How many splits a step has, and whether the kernel knows the shape, are the host's
// questions alone.
[[nodiscard]] bool fits_attention_tensor(const AttentionTask& task);
// attention_tensor makes queries, keys and values itself: no attention_rows.
[[nodiscard]] bool fits_fused_rows(const AttentionTask& task, const StepBatch& batch);
[[nodiscard]] int tensor_splits(const AttentionTask& task, const StepBatch& batch, int num_sms);
[[nodiscard]] int simple_splits(const AttentionTask& task, const StepBatch& batch, int num_sms);
void attention_rows(Queue& queue, const AttentionTask& task, const StepBatch& batch);
void attention_tensor(Queue& queue, const AttentionTask& task, const StepBatch& batch);
void attention_prefill(Queue& queue, const AttentionTask& task, const StepBatch& batch);
void attention_simple(Queue& queue, const AttentionTask& task, const StepBatch& batch);
void attention_merge(Queue& queue, const AttentionTask& task, const StepBatch& batch);

}  // namespace hotset::cuda
