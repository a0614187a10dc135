// SPDX-License-Identifier: Apache-2.0
// A packed matrix as the CUDA kernels see it: plain numbers that travel as a kernel's parameter.
//
// Integer kernels walk a matrix by sub-blocks: up to 32 columns of one group, which share a scale
// of the rounded input. A sub-block of the input takes 32 bytes even where a group ends earlier
// (its tail is zeros), so that every sub-block is one step of mma.m16n8k32 and is 16-byte aligned.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/arithmetic.h"
#include "quant/packed_matrix.h"

#ifdef __CUDACC__
#define HS_BOTH __host__ __device__
#else
#define HS_BOTH
#endif

namespace hotset::cuda {

inline constexpr int kSubBlock = 32;

struct TileLayout {
  const std::byte* data = nullptr;
  const float* codebook = nullptr;
  const int32_t* order = nullptr;
  int64_t tile_bytes = 0;
  int32_t rows = 0;
  int32_t cols = 0;
  int32_t group = 0;
  int32_t num_groups = 0;
  int32_t group_bytes = 0;
  int32_t zeros_offset = 0;  // inside a group block
  int32_t codes_offset = 0;
  int32_t subs_per_group = 0;
  float zero = 0;
  CodeKind code = CodeKind::kF32;
  ScaleKind scale = ScaleKind::kNone;
  bool has_zeros = false;
  bool integer = false;  // multiplied with the rounded input

  HS_BOTH int num_tiles() const { return (rows + kTileRows - 1) / kTileRows; }
  HS_BOTH int num_subs() const { return num_groups * subs_per_group; }
  HS_BOTH int num_steps() const { return num_groups * (group / 8); }  // of 8 columns
};

[[nodiscard]] inline bool is_integer_kind(CodeKind code) {
  return code == CodeKind::kInt8 || code == CodeKind::kAffine4 || code == CodeKind::kCodebook4;
}

[[nodiscard]] inline TileLayout tile_layout(const PackedMatrix& m, Arithmetic arithmetic) {
  TileLayout f;
  f.data = m.data;
  f.codebook = m.codebook;
  f.order = m.input_order;
  f.tile_bytes = m.tile_bytes();
  f.rows = static_cast<int32_t>(m.rows);
  f.cols = static_cast<int32_t>(m.cols);
  f.group = static_cast<int32_t>(m.group);
  f.num_groups = static_cast<int32_t>(m.num_groups());
  f.group_bytes = static_cast<int32_t>(m.group_bytes());
  f.zeros_offset = kTileRows * scale_bytes(m.scale);
  f.codes_offset = static_cast<int32_t>(m.group_header_bytes());
  f.subs_per_group = (f.group + kSubBlock - 1) / kSubBlock;
  f.zero = m.zero;
  f.code = m.code;
  f.scale = m.scale;
  f.has_zeros = m.has_zeros;
  f.integer = arithmetic == Arithmetic::kFast && is_integer_kind(m.code);
  return f;
}

// Steps of 8 columns in sub-block `j` of a group: 4, or fewer where the group ends.
HS_BOTH inline int sub_steps(const TileLayout& f, int j) {
  const int left = f.group / 8 - 4 * j;
  return left < 4 ? left : 4;
}

// The input rounded to int8, a row a token (or a token of an expert).
struct RoundedInput {
  int8_t* q = nullptr;     // [rows, 32 · sub_stride]
  float* meta = nullptr;   // [rows, sub_stride, 2]: scale, and Σ q
  int32_t sub_stride = 0;  // sub-blocks in a row

  HS_BOTH const int8_t* q_row(int64_t row) const { return q + row * sub_stride * kSubBlock; }
  HS_BOTH const float* meta_row(int64_t row) const { return meta + row * sub_stride * 2; }
};

// How a row of the input is cut into sub-blocks, and in which order its columns are read.
struct RoundedCut {
  const int32_t* order = nullptr;
  int32_t group = 0;
  int32_t subs_per_group = 0;
  int32_t cols = 0;

  HS_BOTH int num_subs() const { return (cols + group - 1) / group * subs_per_group; }
};

}  // namespace hotset::cuda
