// SPDX-License-Identifier: Apache-2.0
// The inner loops of attention over pages, one table per instruction set (bodies:
// attention_kernels_body.h). A row is one (token, query head) pair; the rows of a call share a KV
// head.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attention.h"
#include "kernels/cpu/queue.h"

namespace hotset::cpu {

// Rows are stored with head_dim padded to this, zeros behind.
inline constexpr int64_t kAttentionPad = 32;

// The running softmax of some rows: weights relative to max, their sum, and the weighted values.
struct SoftmaxRows {
  float* max = nullptr;  // [rows]
  float* sum = nullptr;  // [rows]; 0: nothing seen yet
  float* acc = nullptr;  // [rows, padded_dim]
};

struct RangeTask {
  int64_t num_rows = 0;
  int64_t rows_per_token = 0;  // num_heads / num_kv_heads
  int64_t padded_dim = 0;
  int64_t kv_head = 0;
  int64_t token_position =
      0;              // of row 0; row r sees positions up to token_position + r / rows_per_token
  int64_t begin = 0;  // positions of this range; begin is a multiple of the tile
  int64_t end = 0;
  int64_t kv_row_bytes = 0;    // of one position and head in a page
  int64_t kv_plane_bytes = 0;  // from K to V
  const float* q = nullptr;    // [num_rows, padded_dim], scaled, zero padded
  float* scratch = nullptr;    // attention_scratch_floats(num_rows, padded_dim)
};

[[nodiscard]] inline int64_t attention_scratch_floats(int64_t num_rows, int64_t padded_dim) {
  return (2 * padded_dim + num_rows) * kAttentionTile;
}

struct AttentionKernels {
  // partial ← softmax rows over positions begin … end−1 alone.
  void (*attend_range)(const RangeTask& task, const KvPages& kv, const SoftmaxRows& partial);
  // total ← total merged with partial, in this order.
  void (*merge)(int64_t num_rows, int64_t padded_dim, const SoftmaxRows& partial,
                const SoftmaxRows& total);
  // out[dim] = acc / sum of one row
  void (*finish)(int64_t head_dim, float sum, const float* acc, float* out);
};

[[nodiscard]] const AttentionKernels& attention_kernels(Isa isa);

const AttentionKernels& attention_kernels_scalar();
const AttentionKernels& attention_kernels_avx2();
const AttentionKernels& attention_kernels_avx512();

}  // namespace hotset::cpu
