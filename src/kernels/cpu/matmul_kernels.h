// SPDX-License-Identifier: Apache-2.0
// The inner loops of the matrix products, one table per instruction set. What crosses this border
// is plain data, so that a file compiled for a newer processor emits no function that others share.
//
// A panel is a run of whole tiles (16 rows each) of one matrix against a run of tokens.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/isa.h"
#include "quant/packed_matrix.h"

namespace hotset::cpu {

inline constexpr int64_t kSubBlock = 32;  // columns that share an activation scale

// A matrix's layout and values, worked out once per call.
struct TileFormat {
  CodeKind code = CodeKind::kF32;
  ScaleKind scale = ScaleKind::kNone;
  bool has_zeros = false;
  float zero = 0;  // of every group, when has_zeros is false
  int64_t cols = 0;
  int64_t group = 0;
  int64_t num_groups = 0;
  int64_t group_bytes = 0;
  int64_t tile_bytes = 0;
  int64_t zeros_offset = 0;  // inside a group block
  int64_t codes_offset = 0;
  // kCodebook4 for integers: entry ≈ codebook_step · (code − 128), see kernels/codebook.h.
  float codebook_step = 1;
  alignas(16) uint8_t codebook_codes[16] = {};
  alignas(64) float codebook[16] = {};
};

// Prepared inputs, one row per token (or per token of an expert). Either x, in the packed column
// order, or the rounded form:  x[c] ≈ scale[c / 32 of its group] · q[c]
struct Activations {
  const float* x = nullptr;
  int64_t ldx = 0;
  int8_t* q = nullptr;  // [rows, q_stride], padded with zeros to whole groups
  int64_t q_stride = 0;
  float* scale = nullptr;  // [rows, sub_stride], one per sub-block of up to 32 columns of a group
  int32_t* sum = nullptr;  // [rows, sub_stride] Σ q of the sub-block
  int64_t sub_stride = 0;
  float* group_sum = nullptr;  // [rows, group_stride] Σ scale · sum of the group
  int64_t group_stride = 0;
  const int32_t* rows = nullptr;  // token i reads row rows[i]; null: row i

  [[nodiscard]] Activations from_row(int64_t row) const;
};

struct PanelArgs {
  const TileFormat* format = nullptr;
  const std::byte* tiles = nullptr;  // the first tile
  int64_t num_tiles = 0;
  int64_t num_rows = 0;  // rows to store, at most 16 · num_tiles
  const Activations* input = nullptr;
  int64_t token_begin = 0;
  int64_t token_end = 0;
  const std::byte* next = nullptr;  // what will be read after the last tile, if that is known
  float* y = nullptr;  // token i, row r of the panel at y[i · ldy + r], i counted from 0
  int64_t ldy = 0;
};

using PanelFn = void (*)(const PanelArgs& args);

struct MatmulKernels {
  PanelFn panel_float[7] = {};    // by CodeKind, from Activations::x
  PanelFn panel_integer[7] = {};  // by CodeKind, from Activations::q; null for plain kinds
  // One row of Activations: order as in PackedMatrix (null: identity).
  void (*quantize)(const float* x, const int32_t* order, int64_t cols, int64_t group, int8_t* q,
                   float* scale, int32_t* sum, float* group_sum) = nullptr;
  // group_sum[g] of a row from its sub-blocks, as quantize makes it.
  void (*sum_groups)(int64_t num_groups, int64_t subs_per_group, const float* scale,
                     const int32_t* sum, float* group_sum) = nullptr;
  // gate[i] = silu(gate[i]) · up[i]
  void (*silu_mul)(int64_t n, float* gate, const float* up) = nullptr;
  // y[i] = fma(weight, x[i], y[i])
  void (*add_scaled)(int64_t n, float weight, const float* x, float* y) = nullptr;
};

[[nodiscard]] const MatmulKernels& matmul_kernels(Isa isa);

// What the table is made of; each function fills its part.
void add_integer_panels_scalar(MatmulKernels& kernels);
void add_integer_panels_avx2(MatmulKernels& kernels);
void add_integer_panels_avxvnni(MatmulKernels& kernels);
void add_integer_panels_avx512(MatmulKernels& kernels);
void add_integer_panels_amx(MatmulKernels& kernels);
void add_float_panels_scalar(MatmulKernels& kernels);
void add_float_panels_avx2(MatmulKernels& kernels);
void add_float_panels_avx512(MatmulKernels& kernels);
void add_row_functions_scalar(MatmulKernels& kernels);
void add_row_functions_avx2(MatmulKernels& kernels);
void add_row_functions_avx512(MatmulKernels& kernels);

}  // namespace hotset::cpu
