// SPDX-License-Identifier: Apache-2.0
// The kernels behind matmul and moe_outputs, each with what it is told. All of it is host code that
// puts work on the queue's stream.
#pragma once

#include "kernels/cuda/expert_table.h"
#include "kernels/cuda/matmul_layout.h"
#include "kernels/cuda/queue.h"
#include "kernels/matmul.h"

namespace hotset::cuda {

inline constexpr int kMaxOutputs = 8;
inline constexpr int kMaxExpertGroups = 4;
inline constexpr int64_t kDecodeTokens = 16;  // up to which weights are read once for all tokens

// ── Rounding the input ──────────────────────────────────────────────────────────────────────────

// One rounded form of the input: what weights of one grouping and column order share.
struct RoundJob {
  RoundedInput to;
  const int32_t* order = nullptr;
  // Orders of experts one by one ([expert − first][3], `which` of the three), where there are any.
  const int32_t* const* orders = nullptr;
  int32_t which = 0;
  int32_t group = 0;
  int32_t subs_per_group = 0;
  int32_t cols = 0;
  // Rows whose expert is not in [first_expert, end_expert) are left out.
  int32_t first_expert = 0;
  int32_t end_expert = 0;
};

struct RoundArgs {
  RoundJob jobs[kMaxOutputs];
  int32_t num_jobs = 0;
  const float* x = nullptr;
  int64_t ldx = 0;
  const float* up = nullptr;  // the input is silu(x) ∘ up
  int64_t num_rows = 0;
  // Row i is made of x's row source[i], or i / rows_per_x, and belongs to expert_of[i] (null: any).
  const int32_t* source = nullptr;
  int32_t rows_per_x = 1;
  const int32_t* expert_of = nullptr;
};

[[nodiscard]] int64_t rounded_bytes(int64_t rows, int64_t subs);
// Sub-blocks of a row of `cols` columns, whatever its groups: the most come from groups of 8, each
// a sub-block; a group may reach past the row.
[[nodiscard]] inline int64_t most_subs(int64_t cols) {
  constexpr int64_t kLongestTail = 64;
  return (cols + 7) / 8 + kLongestTail;
}
[[nodiscard]] RoundedInput take_rounded(Queue& queue, int64_t rows, int64_t subs);
[[nodiscard]] RoundJob round_job(const TileLayout& f, const RoundedInput& to);
[[nodiscard]] inline RoundedCut cut_of(const RoundJob& job) {
  return {job.order, job.group, job.subs_per_group, job.cols};
}
void round_rows(Queue& queue, const RoundArgs& args);

// ── Few tokens ──────────────────────────────────────────────────────────────────────────────────

struct DecodeJob {
  TileLayout weight;
  RoundedInput input;  // integer products only
  float* y = nullptr;
  int64_t ldy = 0;
  int32_t first_block = 0;
  bool tile_a_warp = false;  // or all warps of a block share each
  int32_t tiles_per_block = 1;
  int32_t token_parts = 1;  // blocks that share the tokens of the same tiles
};
struct DecodeArgs {
  DecodeJob jobs[kMaxOutputs];
  int32_t num_jobs = 0;
  int32_t num_tokens = 0;
  const float* x = nullptr;
  int64_t ldx = 0;
  // With few tokens and one rounded form, blocks round x for themselves: no launch before this one.
  bool rounds = false;
  RoundedCut cut;
  bool copies_input = false;  // or they copy it to shared memory, where it fits
};
// Bytes of shared memory that a rounded row takes there, and the most it may.
[[nodiscard]] inline int64_t rounded_row_bytes(const RoundedCut& cut) {
  return int64_t{cut.num_subs()} * (kSubBlock + 8);
}
inline constexpr int64_t kMaxRoundedRow = 24 * 1024;
inline constexpr int64_t kSelfRounded = 4;  // tokens, the most that blocks round for themselves
void decode_products(Queue& queue, DecodeArgs& args);

// ── Many tokens ─────────────────────────────────────────────────────────────────────────────────

// Up to kChunkTokens tokens of one expert: slots slot_begin … of the list sorted by expert.
inline constexpr int32_t kChunkTokens = 64;
struct ExpertChunk {
  int32_t expert = 0;
  int32_t slot_begin = 0;
  int32_t count = 0;
};

struct GemmArgs {
  TileLayout weight;
  RoundedInput input;        // integer products
  const float* x = nullptr;  // the others
  int64_t ldx = 0;
  float* y = nullptr;
  int64_t ldy = 0;
  int64_t num_tokens = 0;  // without experts
  // Experts: chunks[chunk_range[0] … chunk_range[1] − 1], at most max_chunks, all read from device
  // memory. Slot s reads row row_of[s] of the input (null: s) and writes row to_row[s] (null: s).
  const ExpertAddress* addresses = nullptr;
  int32_t which = 0;       // 0 gate, 1 up, 2 down
  int64_t first_byte = 0;  // of the experts' matrices: `weight` begins with a later tile
  const ExpertChunk* chunks = nullptr;
  const int32_t* chunk_range = nullptr;
  int64_t max_chunks = 0;
  const int32_t* row_of = nullptr;
  const int32_t* to_row = nullptr;
  const int32_t* const* orders = nullptr;
  int32_t first_expert = 0;
};
// Gate and up in one pass over the input, with SwiGLU and the rounding of what down reads.
struct GateUpArgs {
  GemmArgs gate;  // its y is not written; up has the same layout but for the codebook
  const float* up_codebook = nullptr;
  RoundedInput act;      // a row a slot
  int32_t act_subs = 0;  // sub-blocks of a row that have to be written
};
// By the weight's `integer`.
void gemm(Queue& queue, const GemmArgs& args);
void integer_gemm(Queue& queue, const GemmArgs& args);
// Whether the kernels for whole groups of 32, 64 or 128 columns multiply this.
[[nodiscard]] bool has_whole_groups(const TileLayout& f, const RoundedInput& input);
void group_gemm(Queue& queue, const GemmArgs& args);
void gate_up_gemm(Queue& queue, const GateUpArgs& args);
void float_gemm(Queue& queue, const GemmArgs& args);

}  // namespace hotset::cuda
