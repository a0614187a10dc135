// SPDX-License-Identifier: Apache-2.0
// The one in-memory form of every weight matrix, whatever file format it came from.
//
// A linear y = x·Wᵀ with W [rows, cols] (rows = output features) is cut into tiles of 16 rows. A
// tile is one contiguous run of bytes, column group after column group, so that a matrix-vector
// product reads memory strictly forward, each SIMD lane owns a row, and no horizontal sum is ever
// needed: the order of additions of a row is its column order, on every instruction set.
//
//   tile t        rows 16t … 16t+15 (rows past `rows` are padding: code bytes 0, scale 0)
//   group g       columns g·group … of the packed order; the last group is padded to full length
//   group block   [16 scales][16 zeros, 1 byte each, if has_zeros][codes]
//   codes         4-bit  : per 8 columns 64 bytes; byte 4r+b of step s holds row r,
//                          low nibble column 8s+b, high nibble column 8s+4+b   (b = 0…3)
//                 8-bit  : per 4 columns 64 bytes; byte 4r+b of step s is row r, column 4s+b
//                 others : per column 16 values (4, 2 or 1 bytes each), row r at index r
//
// Values: w = (u − z)·s      kAffine4 (u, z integers; z per group or `zero` for all), kInt8 (u is
//                            the stored byte, zero = 128)
//         w = codebook[u]·s  kCodebook4
//         w = value          kF32, kF16, kBF16   (no scales; one group spans all columns)
//         w = value·s        kFp8
// Codes and scales are bit-exact those of the checkpoint; only their order is ours. Exceptions are
// made by the loader on request only (16-bit modules kept as kInt8, a codebook's fp32 scales as
// halves) or for shapes this layout can't express, which become kF32.
//
// Source for the idea of row-interleaved tiles: measured in bench/; docs/decisions has the why.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace hotset {

inline constexpr int kTileRows = 16;

enum class CodeKind : uint8_t { kF32, kF16, kBF16, kFp8, kInt8, kAffine4, kCodebook4 };
enum class ScaleKind : uint8_t { kNone, kF16, kBF16, kF32 };

[[nodiscard]] const char* code_kind_name(CodeKind kind);  // "affine4"
[[nodiscard]] int code_bits(CodeKind kind);               // 32, 16, 16, 8, 8, 4, 4
[[nodiscard]] int scale_bytes(ScaleKind kind);            // 0, 2, 2, 4

// Shape and encoding of a packed matrix: everything needed to size it before a byte is read.
struct PackedShape {
  CodeKind code = CodeKind::kF32;
  ScaleKind scale = ScaleKind::kNone;
  bool has_zeros = false;  // one zero byte per row and group in the group block
  uint8_t zero = 0;        // the zero of every group when has_zeros is false
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t group = 0;  // columns per group; a multiple of 8; unscaled: cols rounded up to 8

  [[nodiscard]] int64_t num_tiles() const { return (rows + kTileRows - 1) / kTileRows; }
  [[nodiscard]] int64_t num_groups() const { return (cols + group - 1) / group; }
  [[nodiscard]] int64_t padded_cols() const { return num_groups() * group; }
  [[nodiscard]] int64_t group_header_bytes() const {
    return kTileRows * (scale_bytes(scale) + (has_zeros ? 1 : 0));
  }
  [[nodiscard]] int64_t group_bytes() const {
    return group_header_bytes() + kTileRows * group * code_bits(code) / 8;
  }
  [[nodiscard]] int64_t tile_bytes() const { return num_groups() * group_bytes(); }
  [[nodiscard]] int64_t bytes() const { return num_tiles() * tile_bytes(); }
};

// A view; the owner of the bytes (model/weights, experts' bank) outlives it.
struct PackedMatrix : PackedShape {
  const std::byte* data = nullptr;       // num_tiles() tiles, 64-byte aligned
  const float* codebook = nullptr;       // [16], kCodebook4 only
  const int32_t* input_order = nullptr;  // [cols] packed column j multiplies x[input_order[j]];
                                         // null: identity. (GPTQ desc_act, sorted by group.)

  [[nodiscard]] const std::byte* tile(int64_t t) const { return data + t * tile_bytes(); }
};

// The scalar codec, oracle of every SIMD and CUDA path. out: [cols] fp32 in the model's column
// order (input_order undone). Requires 0 <= row < rows.
void dequantize_row(const PackedMatrix& matrix, int64_t row, std::span<float> out);

// Stores one element (the packed column order) into a matrix under construction; group scale and
// zero are set apart. Slow; for tests, odd shapes and formats without a fast packer.
void set_code(const PackedShape& shape, std::byte* data, int64_t row, int64_t col, uint32_t code);
void set_scale(const PackedShape& shape, std::byte* data, int64_t row, int64_t group_index,
               float scale);
void set_zero(const PackedShape& shape, std::byte* data, int64_t row, int64_t group_index,
              uint8_t zero);

// Packs fp32 rows [rows, cols] as they are (kF32, rounded to kF16/kBF16 when asked), or quantises
// them to kInt8 (group absmax, scale kF16; the codes are chosen against the rounded scale).
// `data` has shape.bytes() bytes. Rows row_begin … row_begin+num_rows of the matrix are written;
// row_begin is a multiple of 16, as is num_rows unless it ends the matrix.
void pack_rows(const PackedShape& shape, const float* values, int64_t row_begin, int64_t num_rows,
               std::byte* data);

// Shapes the constructors above agree on.
[[nodiscard]] PackedShape plain_shape(CodeKind code, int64_t rows, int64_t cols);
[[nodiscard]] PackedShape int8_shape(int64_t rows, int64_t cols, int64_t group = 128);

}  // namespace hotset
